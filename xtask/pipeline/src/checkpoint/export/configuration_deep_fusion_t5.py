"""The configuration of a T5 made by Deep Fusion (arXiv 2306.11903): T5's, and the groups of its normalisation."""

from transformers import T5Config


class DeepFusionT5Config(T5Config):
    """T5's configuration with `rms_norm_groups`: the widths, adding up to `d_model`, of the slices of the residual
    stream that are normalised each by itself, one for each fused model. Without it, the whole width is one group."""

    model_type = "deep_fusion_t5"

    def __init__(self, rms_norm_groups=None, **kwargs):
        # transformers 5 writes `tie_word_embeddings: true` for every T5, and the truth as `scale_decoder_outputs`;
        # transformers 4 reads the first alone.
        if kwargs.get("scale_decoder_outputs") is False:
            kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)
        self.rms_norm_groups = [self.d_model] if rms_norm_groups is None else list(rms_norm_groups)
        if min(self.rms_norm_groups, default=0) < 1 or sum(self.rms_norm_groups) != self.d_model:
            raise ValueError(f"rms_norm_groups {self.rms_norm_groups} do not add up to d_model {self.d_model}")

    def get_text_config(self, decoder=None, encoder=None):
        config = super().get_text_config(decoder=decoder, encoder=encoder)
        # A cache has as many layers as the decoder; T5's own configuration says the encoder's number.
        if decoder and not encoder and config is not self:
            config.num_layers = config.num_decoder_layers
        return config

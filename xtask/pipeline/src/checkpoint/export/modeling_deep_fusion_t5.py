"""T5 made by Deep Fusion (arXiv 2306.11903) under the fusion property: transformers' T5, but for the normalisation, in
which every fused model's slice of the residual stream is normalised by itself."""

import torch
from transformers import T5EncoderModel, T5ForConditionalGeneration, T5Model
from transformers.models.t5.modeling_t5 import T5LayerNorm

from .configuration_deep_fusion_t5 import DeepFusionT5Config


class GroupedT5LayerNorm(T5LayerNorm):
    """T5's RMSNorm over each of `groups` consecutive slices of the last axis, which they add up to."""

    def __init__(self, weight, groups, eps):
        super().__init__(sum(groups), eps=eps)
        self.weight = weight
        self.groups = list(groups)
        self.eps = eps

    def forward(self, hidden_states):
        slices = hidden_states.split(self.groups, dim=-1)
        hidden_states = torch.cat([self.normalise(features) for features in slices], dim=-1)
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            hidden_states = hidden_states.to(self.weight.dtype)
        return self.weight * hidden_states

    def normalise(self, features):
        # The mean square in float32 whatever the type of the features, as T5 has it.
        mean_square = features.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return features * torch.rsqrt(mean_square + self.eps)

    def extra_repr(self):
        return f"groups={self.groups}, eps={self.eps}"


def group_norms(model):
    """Replaces every normalisation of a T5 by a grouped one with the same weight."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, T5LayerNorm):
                config = model.config
                grouped = GroupedT5LayerNorm(child.weight, config.rms_norm_groups, config.layer_norm_epsilon)
                setattr(module, name, grouped)


class DeepFusionT5Model(T5Model):
    config_class = DeepFusionT5Config

    def __init__(self, config):
        super().__init__(config)
        group_norms(self)


class DeepFusionT5EncoderModel(T5EncoderModel):
    config_class = DeepFusionT5Config

    def __init__(self, config):
        super().__init__(config)
        group_norms(self)


class DeepFusionT5ForConditionalGeneration(T5ForConditionalGeneration):
    config_class = DeepFusionT5Config

    def __init__(self, config):
        super().__init__(config)
        group_norms(self)

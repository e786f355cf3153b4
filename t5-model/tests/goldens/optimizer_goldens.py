"""Trajectories of the optimisers and of the learning-rate schedules.

    python optimizer_goldens.py     # rewrites optimizers.safetensors, optimizers.json and schedules.json

`optimizers.safetensors`, all f32, computed in float64:

- `learning_rate` [20], `gradient_scale` [20];
- `initial.<tensor>` and `gradient.<tensor>` [3, ...]: update t = 1..20 uses the gradient
  `gradient_scale[t-1] * gradient.<tensor>[(t-1) % 3]` and the rate `learning_rate[t-1]`;
- `<run>.<tensor>` [20, ...]: the parameter after each update; for `factored`, to save space, [2, ...]: after the
  first and after the last;
- `<run>.<tensor>.<state>`: the optimiser's state after the last update: `exp_avg` (Muon's only for the small
  matrices), `exp_avg_sq`, `row` [rows],
  `column` [columns] or `second_moment`.

Tensors: `factored` [130, 140], `matrix` [9, 7], `vector` [11], `small` [6, 5] (RMS below 1e-3, so that the floor of the
parameter scale counts). Row 2 of the two larger matrices never gets a gradient, as the embedding of an absent token.
Runs and their settings are listed in `optimizers.json`.

Where the implementations of Adafactor agree: decay 1 - t^-0.8 with t = 1 at the first update, epsilon 1e-30 added to
the squared gradient, update clipped to RMS 1 before the learning rate, scale max(1e-3, RMS of the parameter before the
update). Where they do not: transformers factors every tensor with two axes, T5X only if both axes have at least 128
entries. transformers keeps the means over the last axis (`exp_avg_sq_row`) and over the one before
(`exp_avg_sq_col`) and divides the first by its mean; T5X calls the mean over the longest axis `v_row` and divides that
one. Since both states have the same mean, the update is the same.

`schedules.json`: for each schedule, its settings and `values`, pairs of a step and a learning rate. A step is the
number of updates already made: step 0 is the rate of the first update.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from transformers import optimization

HERE = Path(__file__).resolve().parent
STEPS = 20
SHAPES = {"factored": (130, 140), "matrix": (9, 7), "vector": (11,), "small": (6, 5)}
SMALL_TENSORS = ["matrix", "vector", "small"]


def rms(tensor):
    return (tensor**2).mean() ** 0.5


class AdamWScale:
    """nanoT5's optimiser (Nawrot, https://github.com/PiotrNawrot/nanoT5, `utils/copied_utils.py`), written anew.

    Adam whose step is multiplied by max(1e-3, RMS(w)). Unlike torch's AdamW it adds epsilon to the root of the
    *uncorrected* second moment, and it decays weights after the update, by the rate that is not scaled by the RMS.
    """

    def __init__(self, parameter, betas, eps, weight_decay):
        self.w = parameter.clone()
        self.beta1, self.beta2 = betas
        self.eps, self.weight_decay, self.step = eps, weight_decay, 0
        self.state = dict(exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))

    def update(self, gradient, rate):
        self.step += 1
        m, v = self.state["exp_avg"], self.state["exp_avg_sq"]
        m.copy_(self.beta1 * m + (1 - self.beta1) * gradient)
        v.copy_(self.beta2 * v + (1 - self.beta2) * gradient**2)
        corrected = rate * (1 - self.beta2**self.step) ** 0.5 / (1 - self.beta1**self.step)
        self.w -= corrected * max(1e-3, rms(self.w).item()) * m / (v**0.5 + self.eps)
        self.w -= rate * self.weight_decay * self.w


class ShazeerStern:
    """Adafactor in NumPy, with T5X's rule for what is factored.

    Shazeer and Stern (arXiv 1804.04235): Algorithm 4 with parameter scaling, update clipping and increasing decay.
    """

    def __init__(self, parameter, min_dim_size_to_factor=128):
        self.w = parameter.numpy().copy()
        self.factored = self.w.ndim == 2 and min(self.w.shape) >= min_dim_size_to_factor
        self.row, self.column, self.v = 0.0, 0.0, 0.0
        self.step = 0

    def update(self, gradient, rate):
        self.step += 1
        gradient = gradient.numpy()
        decay = 1.0 - self.step**-0.8
        squared = gradient**2 + 1e-30
        if self.factored:
            self.row = decay * self.row + (1 - decay) * squared.mean(1)
            self.column = decay * self.column + (1 - decay) * squared.mean(0)
            second_moment = np.outer(self.row, self.column) / self.row.mean()
        else:
            self.v = decay * self.v + (1 - decay) * squared
            second_moment = self.v
        update = gradient / np.sqrt(second_moment)
        update /= max(1.0, rms(update))
        self.w = self.w - rate * max(1e-3, rms(self.w)) * update

    @property
    def state(self):
        names = dict(row=self.row, column=self.column) if self.factored else dict(second_moment=self.v)
        return {name: torch.from_numpy(value) for name, value in names.items()}


class Torch:
    """An optimiser with PyTorch's interface."""

    def __init__(self, parameter, constructor, states, **settings):
        self.w = torch.nn.Parameter(parameter.clone())
        self.optimizer = constructor([self.w], **settings)
        self.states = states

    def update(self, gradient, rate):
        self.optimizer.param_groups[0]["lr"] = rate
        self.w.grad = gradient.clone()
        self.optimizer.step()

    @property
    def state(self):
        state = self.optimizer.state[self.w]
        return {name: state[key] for key, name in self.states.items() if key in state}


MOMENTS = dict(exp_avg="exp_avg", exp_avg_sq="exp_avg_sq")
HF_STATES = dict(exp_avg_sq_row="row", exp_avg_sq_col="column", exp_avg_sq="second_moment")
ADAMW = dict(betas=(0.9, 0.999), eps=1e-8)
NANO_T5 = dict(betas=(0.9, 0.999), eps=1e-6)
HF_ADAFACTOR = dict(
    lr=1.0, scale_parameter=True, relative_step=False, warmup_init=False,
    clip_threshold=1.0, decay_rate=-0.8, beta1=None, eps=(1e-30, 1e-3), weight_decay=0.0,
)  # fmt: skip


def adamw(weight_decay):
    return lambda w: Torch(w, torch.optim.AdamW, MOMENTS, weight_decay=weight_decay, foreach=False, **ADAMW)


def adamw_scale(weight_decay):
    return lambda w: AdamWScale(w, weight_decay=weight_decay, **NANO_T5)


def muon(weight_decay):
    # torch.optim.Muon orthogonalises in bfloat16; here it computes in float64 like the others.
    torch.Tensor.bfloat16 = lambda self: self.clone()
    return lambda w: Torch(
        w, torch.optim.Muon, dict(momentum_buffer="exp_avg"), weight_decay=weight_decay, momentum=0.95, nesterov=True
    )


def hf_adafactor(w):
    return Torch(w, optimization.Adafactor, HF_STATES, **HF_ADAFACTOR)


RUNS = {
    "adamw": (adamw(0.0), SMALL_TENSORS, dict(optimizer="torch.optim.AdamW", weight_decay=0.0, **ADAMW)),
    "adamw_decay": (adamw(0.01), SMALL_TENSORS, dict(optimizer="torch.optim.AdamW", weight_decay=0.01, **ADAMW)),
    "adamw_scale": (adamw_scale(0.0), SMALL_TENSORS, dict(optimizer="nanoT5 AdamWScale", weight_decay=0.0, **NANO_T5)),
    "adamw_scale_decay": (
        adamw_scale(0.01), SMALL_TENSORS, dict(optimizer="nanoT5 AdamWScale", weight_decay=0.01, **NANO_T5)
    ),
    # Wide, tall, and tiny gradients.
    "muon": (muon(0.0), ["factored", "matrix", "small"], dict(optimizer="torch.optim.Muon", weight_decay=0.0)),
    "muon_decay": (muon(0.01), ["matrix"], dict(optimizer="torch.optim.Muon", weight_decay=0.01)),
    # Factored in T5X's sense and in transformers', and not factored in either.
    "adafactor": (hf_adafactor, ["factored", "vector"], dict(optimizer="transformers.optimization.Adafactor")),
    # Too small to be factored in T5X's sense.
    "adafactor_t5x": (ShazeerStern, ["matrix", "small"], dict(optimizer="Adafactor, min_dim_size_to_factor 128")),
    # The same tensors as transformers factors them: not what T5X does.
    "adafactor_hf": (hf_adafactor, ["matrix", "small"], dict(optimizer="transformers.optimization.Adafactor")),
}  # fmt: skip


def trajectory(optimizer, gradients, rates, scales):
    parameters = []
    for t in range(STEPS):
        optimizer.update(gradients[t % 3] * scales[t], rates[t].item())
        parameters.append(torch.as_tensor(optimizer.w).detach().clone())
    return torch.stack(parameters)


def optimizers():
    generator = torch.Generator().manual_seed(3)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    # Rates rise and fall; scales are powers of two, hence exact, with one large gradient that Adafactor clips.
    rates = torch.tensor([0.01 * min(1.0, t / 5) * (20 / max(20, 3 * t)) ** 0.5 for t in range(1, STEPS + 1)])
    scales = torch.tensor([2.0 ** ((5 * t) % 7 - 3) for t in range(STEPS)])
    scales[12] = 64.0
    tensors = {"learning_rate": rates, "gradient_scale": scales}
    for name, shape in SHAPES.items():
        tensors["initial." + name] = normal(*shape) * (2e-4 if name == "small" else 0.5)
        # Gradients whose size varies with the row and the column: a constant second moment would hide mistakes.
        gradients = normal(3, *shape) * 10 ** normal(*shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
        if name in ("factored", "matrix"):
            gradients[:, 2] = 0.0
        tensors["gradient." + name] = gradients
    double = {name: tensor.double() for name, tensor in tensors.items()}
    for run, (build, names, _) in RUNS.items():
        for name in names:
            optimizer = build(double["initial." + name])
            gradients = double["gradient." + name]
            path = trajectory(optimizer, gradients, double["learning_rate"], double["gradient_scale"])
            tensors[f"{run}.{name}"] = path[[0, -1]] if name == "factored" else path
            for state, value in optimizer.state.items():
                if name != "factored" or value.dim() == 1:
                    tensors[f"{run}.{name}.{state}"] = value
            if run == "adafactor":  # our own Adafactor is transformers' where their rules agree
                own = trajectory(ShazeerStern(double["initial." + name]), gradients, double["learning_rate"],
                                 double["gradient_scale"])  # fmt: skip
                torch.testing.assert_close(own, path, rtol=1e-10, atol=1e-14)
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, HERE / "optimizers.safetensors")
    runs = {run: dict(settings, tensors=names) for run, (_, names, settings) in RUNS.items()}
    for run in runs:
        if run.startswith("adafactor"):
            runs[run].update(decay_rate=0.8, clip_threshold=1.0, epsilon=[1e-30, 1e-3], scale_parameter=True)
    (HERE / "optimizers.json").write_text(json.dumps(runs, indent=1) + "\n")


def schedule(base, total, build):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=base)
    scheduler = build(optimizer)
    values = []
    for step in range(total + 1):
        values.append([step, optimizer.param_groups[0]["lr"]])
        optimizer.step()
        scheduler.step()
    return values


def nano_t5(optimizer, warmup, total, minimum):
    """nanoT5's `get_lr_scheduler`: the warm-up starts at half the rate, not at zero."""
    return SequentialLR(
        optimizer,
        [LinearLR(optimizer, start_factor=0.5, end_factor=1, total_iters=warmup),
         CosineAnnealingLR(optimizer, T_max=total - warmup, eta_min=minimum)],
        milestones=[warmup],
    )  # fmt: skip


def schedules():
    base, warmup, total, minimum = 0.02, 10, 60, 1e-5
    common = dict(base=base, warmup=warmup, total=total)
    # T5X's `constant * rsqrt_decay` with a base of 1 is how its T5 1.1 pretraining is configured; its default has
    # `linear_warmup` too.
    rsqrt = lambda step, warmup: 1.0 / math.sqrt(max(step, warmup))  # noqa: E731
    steps = [0, 1, 100, 9_999, 10_000, 10_001, 12_345, 40_000, 65_536, 1_000_000]
    out = {
        "constant_with_warmup": dict(
            source="transformers.get_constant_schedule_with_warmup", base=base, warmup=warmup,
            values=schedule(base, total, lambda o: optimization.get_constant_schedule_with_warmup(o, warmup)),
        ),
        "linear_with_warmup": dict(
            source="transformers.get_linear_schedule_with_warmup", **common,
            values=schedule(base, total + 3, lambda o: optimization.get_linear_schedule_with_warmup(o, warmup, total)),
        ),
        "cosine_with_warmup": dict(
            source="transformers.get_cosine_schedule_with_warmup", **common,
            values=schedule(base, total, lambda o: optimization.get_cosine_schedule_with_warmup(o, warmup, total)),
        ),
        "cosine_with_min_lr": dict(
            source="transformers.get_cosine_with_min_lr_schedule_with_warmup", minimum=minimum, **common,
            values=schedule(base, total, lambda o: optimization.get_cosine_with_min_lr_schedule_with_warmup(
                o, warmup, total, min_lr=minimum)),
        ),
        **{
            f"wsd_{decay}_{minimum}": dict(
                source="transformers.get_wsd_schedule", decay=decay, decay_steps=15, minimum=minimum, **common,
                values=schedule(base, total + 3, lambda o: optimization.get_wsd_schedule(
                    o, warmup, 15, num_training_steps=total, decay_type=decay, min_lr_ratio=minimum / base)),
            )
            for decay, minimum in [("linear", 0.0), ("cosine", 0.0), ("1-sqrt", 0.0), ("1-sqrt", 0.002)]
        },
        "nano_t5_cosine": dict(
            source="nanoT5: torch LinearLR from one half, then CosineAnnealingLR", minimum=minimum, **common,
            values=schedule(base, total, lambda o: nano_t5(o, warmup, total, minimum)),
        ),
        "inverse_square_root": dict(
            source="T5X: constant * rsqrt_decay", base=1.0, warmup=10_000,
            values=[[step, rsqrt(step, 10_000)] for step in steps],
        ),
        "inverse_square_root_with_warmup": dict(
            source="T5X: constant * linear_warmup * rsqrt_decay", base=0.5, warmup=1000,
            values=[[step, 0.5 * min(1.0, step / 1000) * rsqrt(step, 1000)] for step in [*steps, 500, 1000, 1001]],
        ),
    }  # fmt: skip
    (HERE / "schedules.json").write_text(
        "{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in out.items()) + "\n}\n"
    )


if __name__ == "__main__":
    optimizers()
    schedules()

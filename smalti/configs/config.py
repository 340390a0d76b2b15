"""The configuration of a training run: two levels of plain values, unknown keys forbidden, documented by the string
below each field.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from smalti.configs.values import (
    ByteSize,
    Count,
    Decay,
    Fraction,
    MaybeByteSize,
    Natural,
    NotNegative,
    Positive,
    Section,
)
from smalti.configs.values import parse_bytes as parse_bytes  # what reads the sizes is part of the configuration


class DataConfig(Section):
    """What is trained on."""

    path: str = ""
    """Folder or file of the capture."""
    format: str = "auto"
    """Format of the data where it cannot be told, or is to be read by another reader (`nerfstudio:colmap`)."""
    split: str = "auto"
    """Which views are held out: `auto` (the files' own, else `every:8`), `files`, `every:N`, `none`, `names:FILE`
    or `names:A,B`.
    """
    downscale: Natural = 1
    """Pictures are reduced by this factor when loaded."""
    cache: ByteSize = "1GB"
    """Bytes of decoded pictures kept in memory."""
    background: Literal["auto", "black", "white", "random"] = "auto"
    """Behind pictures with alpha and behind the scene: `auto` is what the data set states (black where it states
    nothing).
    """
    masks: Literal["loss", "alpha", "none"] = "loss"
    """Where the capture has masks: `loss` leaves pixels outside of them out, so that anything may be drawn there;
    `alpha` makes them transparent, over `background`, so that things end where their mask does; `none` takes whole
    pictures, as if there were no masks.
    """
    time: float | None = None
    """Of a capture with times, train only the views of the instant nearest to this one; null trains on all views."""
    points: Literal["auto", "file", "triangulate", "hull", "frustum"] = "auto"
    """Initial points: the file's, on the visual hull (where all pictures have masks or alpha), triangulated (needs the
    extra `sfm`), or random where many cameras look (`frustum`); `auto` takes the first of these that is possible.
    """
    max_points: Natural = 200_000
    """Points of the file, or triangulated ones, beyond this number are thinned out at random."""
    sampled_points: Natural = 20_000
    """How many points are sampled where there are none (visual hull, random)."""
    align: Literal["none", "auto"] = "none"
    """`auto` finds the capture's canonical frame (+y up, the subject in the cube [-1, 1]^3) from its cameras and points
    and shows it in RUN/world.png: the layers' start, and the unit of rates of positions and of sizes, are then as that
    frame says. Nothing is moved: cameras, scene and files stay in the input's frame.
    """
    up: str | tuple[float, float, float] = ""
    """With `align`, states up instead: an axis of the input (`z`, `-y`) or a direction ([0, -0.4, -0.9])."""
    centre: tuple[float, float, float] | None = None
    """With `align`, states the canonical origin: a point of the input."""
    radius: NotNegative = 0.0
    """With `align`, states half the side of the cube, in the input's unit; 0 has it found."""
    ground: float | Literal["auto", "none"] = "auto"
    """With `align`, states the ground's height (y) in the canonical frame, or that there is none."""


class LayerConfig(Section):
    """One layer of the scene: a family and how it starts, looks, learns and grows."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    """What the layer is called in records, files and on the command line; by default as its family."""
    family: str = Field(min_length=1)
    """Registered primitive family."""
    metadata: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """The family's own plain options (for Gaussians: sh_degree, filter_variance, compensated, initial_opacity,
    initial_scale).
    """
    initializer: str = "points"
    """Where the layer comes from: `points` (of the capture, see `data.points`), `random` and `grid` (inside bounds),
    `missing` (where the layers before it differ from the pictures), `hull` (mesh of the coarse visual hull), `spheres`
    (icospheres inside bounds), `world` (the cube of the canonical frame, see `data.align`), `floor` (the same, at the
    ground's height), `around` (the same, around all cameras), `file`.
    """
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """The initialiser's own: `count` (points, random, world, grid, missing, spheres), `margin` (share by which bounds
    grow; random, grid, missing, spheres), `faces` (hull), `level` (spheres), `primitives` (hull, spheres: so many on
    the surface instead of the surface itself), `occupied` (grid: only where points are), `path` and `layer` (file).
    """
    learning_rates: dict[str, NotNegative] = Field(default_factory=dict)
    """Rates by parameter name, over the family's own defaults; rates of positions are per unit of scene extent."""
    regularizers: dict[str, NotNegative] = Field(default_factory=dict)
    """Weights of loss terms that the family offers, over its own defaults and over those of `loss`."""
    density: Literal["", "none", "gradient", "mcmc"] = ""
    """Rule of this layer; by default `density.rule`, but `none` for primitives that hang together (those of meshes)."""
    max_primitives: Count = 0
    """Growth of this layer stops here; 0 for no limit of its own."""
    frozen: bool = False
    """Drawn, but not trained."""


class ModelConfig(Section):
    """What holds for the scene as a whole."""

    order: Literal["auto", "centre", "ray"] = "auto"
    """Compositing order stored in the scene; `auto`: `centre` where all its families are made for that, else `ray`."""
    near: NotNegative = 0.01
    """Near plane as a share of the scene's extent."""


class LossConfig(Section):
    """What is minimised."""

    dssim: Fraction = 0.2
    """w of (1 - w) pixel + w (1 - SSIM)."""
    pixel: Literal["l1", "mse"] = "l1"
    """What pixels are compared by: mean absolute or mean squared difference."""
    perceptual: NotNegative = 0.0
    """Weight of the perceptual distance of the pictures, added to the above; 0 for none."""
    perceptual_kind: Literal["auto", "lpips", "gradients"] = "auto"
    """`lpips`: LPIPS-VGG. `gradients`: absolute differences of image gradients on a pyramid. `auto`: the first where
    its weights are on this machine, else the second at six times the weight; said and written beside every number.
    """
    perceptual_every: Natural = 1
    """Only at every so many steps, with so many times the weight."""
    perceptual_crop: Count = 0
    """Of a random square of so many pixels a side (at least 32), instead of the whole picture; 0 for the whole."""
    opacity: NotNegative = 0.001
    """Weight of the mean opacity, of every layer whose family has that term."""
    scale: NotNegative = 0.01
    """Weight of the mean size of primitives, in units of the scene's extent, likewise."""
    anisotropy: NotNegative = 0.0
    """Weight of the mean excess of longest over second-longest axis beyond `anisotropy_limit` (needles), likewise."""
    anisotropy_limit: Positive = 8.0
    """Ratio from which a primitive counts as a needle."""

    @field_validator("perceptual_crop")
    @classmethod
    def _large_enough(cls, value: int) -> int:
        if 0 < value < 32:
            raise ValueError("a crop has at least 32 pixels a side; 0 takes the whole picture")
        return value


class OptimizerConfig(Section):
    """Adam and its schedules."""

    scale_positions: bool = True
    """Rates of positions are multiplied by the scene's extent; False takes them in world units."""
    position_final: Positive = 0.01
    """Rates of positions decay exponentially to this share over the run."""
    other_final: Positive = 1.0
    """All other rates decay exponentially to this share over the run."""
    warmup: Count = 0
    """Steps of linear warm-up of all rates."""
    beta_1: Decay = 0.9
    """Decay of Adam's first moment."""
    beta_2: Decay = 0.999
    """Decay of Adam's second moment."""
    epsilon: Positive = 1e-15
    """Adam's epsilon."""
    drops: list[tuple[Count, Positive]] = Field(default_factory=list)
    """Pairs [step, factor]: from that step on, all rates are multiplied by that factor (all that came multiply up)."""

    @field_validator("drops")
    @classmethod
    def _rising(cls, value: list[tuple[int, float]]) -> list[tuple[int, float]]:
        steps = [step for step, _ in value]
        if steps != sorted(set(steps)):
            raise ValueError("steps must rise, for example [[23000, 0.1]]")
        return value


class ScheduleConfig(Section):
    """What changes along the run, besides learning rates."""

    length: Count = 0
    """Steps that shares of a run are of: the decay of rates, what families do until or from a share of it. 0: as many
    as the run has. A run that is continued to another step (`--resume RUN --steps N`) keeps its schedule by this.
    """
    sh_every: Natural = 1000
    """Steps between the colour degrees."""
    resolution: list[tuple[int, int]] = Field(default_factory=list)
    """Pairs [until_step, factor]: until that step, pictures are further reduced by that factor."""
    batch: Natural = 1
    """Views per step; their losses are averaged."""
    weights: list[tuple[Count, str, NotNegative]] = Field(default_factory=list)
    """Triples [step, term, factor]: from that step on, the weight of that loss term is multiplied by that factor (all
    that came multiply up). A term of the pictures (`dssim`, `perceptual`), of every layer whose family has it
    (`total_variation`), or of one layer (`LAYER/total_variation`).
    """

    @field_validator("weights")
    @classmethod
    def _in_order(cls, value: list[tuple[int, str, float]]) -> list[tuple[int, str, float]]:
        if [step for step, _, _ in value] != sorted(step for step, _, _ in value):
            raise ValueError("steps must not fall, for example [[20000, parsimony, 0.0], [20000, perceptual, 0.1]]")
        if len({(step, term) for step, term, _ in value}) < len(value):
            raise ValueError("a term changes twice at one step; write one factor")
        return value

    @field_validator("resolution")
    @classmethod
    def _rising(cls, value: list[tuple[int, int]]) -> list[tuple[int, int]]:
        steps = [step for step, _ in value]
        if steps != sorted(set(steps)) or any(factor < 1 for _, factor in value):
            raise ValueError("steps must rise and factors be at least 1, for example [[300, 4], [900, 2]]")
        return value


class DensityConfig(Section):
    """How the number of primitives changes, whatever the rule."""

    rule: Literal["none", "gradient", "mcmc"] = "gradient"
    """`gradient`: clone and split by screen gradient (3DGS). `mcmc`: relocation and noise (Kheradmand et al. 2024)."""
    start: Count = 500
    """First step of growth."""
    stop: Count = 15_000
    """Last step of growth."""
    every: Natural = 100
    """Steps between changes."""
    max_primitives: Natural = 1_000_000
    """Growth stops here."""
    pixels_per_primitive: NotNegative = 0.0
    """Growth also stops at one primitive per so many training pixels (few views support few); 0 for no such cap."""
    budget: ByteSize = "4GB"
    """Bytes for parameters, gradients, optimiser state, density statistics and the renderer's arena together."""
    model: MaybeByteSize = ""
    """Bytes for the model alone: what all layers together hold when they are saved. Kept at the start, in growth and at
    the end; empty for no such limit.
    """
    opacity_min: Fraction = 0.005
    """Primitives below are dead: pruned, or relocated by `mcmc`."""
    near_camera: NotNegative = 0.02
    """Primitives whose centre is nearer than this share of the scene's extent to a training camera are removed; 0
    keeps them.
    """


class GradientConfig(Section):
    """Options of the `gradient` rule."""

    threshold: Positive = 2e-4
    """Mean screen gradient from which a primitive grows, per half picture size: independent of resolution. Of families
    that measure the pull themselves: in their own unit.
    """
    prune_pull: NotNegative = 0.0
    """Primitives that were seen, and pulled at less than this in the mean, are pruned; 0 keeps them."""
    absolute: bool = False
    """Use the sum of absolute per-pixel gradients (AbsGS); raise the threshold to about 8e-4."""
    clone_size: Positive = 0.01
    """Primitives up to this share of the scene's extent are cloned, larger ones split."""
    prune_size: Positive = 0.1
    """Primitives larger than this share of the scene's extent are pruned, after the first opacity reset."""
    prune_screen: Positive = 0.5
    """Primitives whose radius on a picture exceeds this share of its longer side are pruned, after the first opacity
    reset.
    """
    reset_every: Count = 3000
    """Steps between opacity resets; 0 for none."""
    reset_opacity: Fraction = 0.01
    """Opacities are cut to this at a reset."""


class McmcConfig(Section):
    """Options of the `mcmc` rule."""

    growth: NotNegative = 0.05
    """Share of new primitives at each change."""
    noise: NotNegative = 5e5
    """Noise strength, times the present learning rate of positions."""


class ExchangeConfig(Section):
    """Bytes that move between layers, and inside them, to where they pay; works beside any rule, and in scenes whose
    bytes are all in use.
    """

    every: Count = 0
    """Steps between moves, while structure changes (`density.start` to `density.stop`); 0 for none."""
    share: Fraction = 0.03
    """Of each layer's primitives, how many are moved inside it at once, and of the bytes of all layers that take part,
    how many between two.
    """
    trial: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Of each layer's primitives, those of least contribution first, how many are left out to try their worth."""
    views: Natural = 8
    """Training views that judge."""
    margin: NotNegative = 0.25
    """By which share the taker's bytes have to be worth more than the giver's; else none move between layers."""
    memory: Fraction = 0.5
    """How much the newest trial says of a layer's worth; the rest is what was known."""
    race: Count = 0
    """Steps for which the run is tried as it is, and with each layer taking all bytes, before any move between layers;
    the best (that took them all in time) is followed. 0 for no such trial: they share the bytes by their worth."""


class ContributionConfig(Section):
    """Pruning by what primitives contribute to the training pictures; works beside any rule."""

    at: list[int] = Field(default_factory=list)
    """Steps at which all training views are rendered with statistics and primitives judged."""
    minimum: Fraction = 0.01
    """Primitives whose largest weight T a in any view stays below are removed."""
    min_views: Count = 0
    """Primitives that weigh at least `minimum` in fewer views than this are removed; 0 or 1 for no such rule."""


class RefineConfig(Section):
    """What is optimised besides the scene."""

    poses: NotNegative = 0.0
    """Learning rate of camera poses (SE(3) tangent per view); 0 for none."""
    exposure: NotNegative = 0.0
    """Learning rate of a 3x4 colour transform per view; 0 for none."""
    exposure_regularizer: NotNegative = 0.1
    """Pulls each colour transform to the identity."""
    start: Count = 0
    """First step of refinement."""


class RunConfig(Section):
    """Length, seeds, checkpoints, evaluation."""

    steps: Natural = 30_000
    """The run ends after this many steps; the schedule's own steps stay (see `stretch`)."""
    stretch: Positive = 1.0
    """Multiplies the length of the run and every step of its schedule, after all other options: 0.25 makes a quarter of
    the run. Carried out once; the saved configuration holds the result.
    """
    seed: int = 0
    """Of everything random."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu` or `cuda` (`cuda:1` for the second card)."""
    backend: Literal["auto", "cpu", "cuda", "gsplat", "oracle"] = "auto"
    """What draws: the device's own engine, or by name; `gsplat` is that package, on CUDA, for scenes of EWA Gaussians
    alone (not bit-exact).
    """
    wall_limit: NotNegative = 0.0
    """Minutes after which the run stops by the clock, counted anew at every start; 0 for none. Not bit-exact."""
    checkpoint_every: Count = 1000
    """Steps between checkpoints; 0 saves only at the end."""
    keep: Natural = 2
    """Checkpoints kept."""
    eval_every: Count = 0
    """Steps between evaluations of the held-out views; 0 for none but the last."""
    eval_at_cpu_seconds: list[float] = Field(default_factory=list)
    """Evaluate when training has used so much processor time (evaluation itself excluded)."""
    log_every: Natural = 10
    """Steps between records in metrics.jsonl."""
    preview_every: Natural = 100
    """Steps between renders of the fixed view whose PSNR is displayed."""
    bad_gradient: Literal["skip", "stop"] = "skip"
    """NaN or Inf in a gradient: leave those primitives out of the update, or stop the run. Either way it is named."""
    finish: list[
        Literal["evaluation", "curves", "sheet", "export", "video", "parts", "turntable", "exploded", "flat"]
    ] = Field(default_factory=lambda: ["evaluation", "curves", "sheet", "export"])
    """What is made in the run folder at the end; the last four of scenes in separate parts (blocks)."""


class TrainConfig(Section):
    """All of it."""

    preset: str = ""
    """Name of the preset that this came from."""
    init_from: str = ""
    """A scene to start from: a scene file (where there is one layer), or a scene folder, whose layers go by name."""
    data: DataConfig = Field(default_factory=DataConfig)
    scene: list[LayerConfig] = Field(default_factory=list)
    """What is trained: a list of layers. On the command line `--scene.NAME.FIELD VALUE` changes one; where there is one
    alone, `--FIELD VALUE` does.
    """
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    density: DensityConfig = Field(default_factory=DensityConfig)
    gradient: GradientConfig = Field(default_factory=GradientConfig)
    mcmc: McmcConfig = Field(default_factory=McmcConfig)
    exchange: ExchangeConfig = Field(default_factory=ExchangeConfig)
    contribution: ContributionConfig = Field(default_factory=ContributionConfig)
    refine: RefineConfig = Field(default_factory=RefineConfig)
    run: RunConfig = Field(default_factory=RunConfig)

    @field_validator("scene")
    @classmethod
    def _named(cls, layers: list[LayerConfig]) -> list[LayerConfig]:
        for layer in layers:
            layer.name = layer.name or layer.family
        names = [layer.name for layer in layers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two layers are called {twice[0]!r}; give each a name of its own")
        return layers

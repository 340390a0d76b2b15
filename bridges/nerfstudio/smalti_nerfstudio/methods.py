"""The methods: one for each preset of Smalti's that a capture of nerfstudio's can start."""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import resolve
from smalti.primitives.family import find_family
from smalti_nerfstudio.data import SmaltiDatamanagerConfig
from smalti_nerfstudio.model import SmaltiModelConfig
from smalti_nerfstudio.optimizers import DecayConfig, RowAdamConfig


def optimizers_of(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """nerfstudio's table of optimisers for the layers of a configuration, with its rates."""
    table: dict[str, dict[str, Any]] = {}
    options = config.optimizer
    for layer in config.scene:
        family = find_family(layer.family)
        for name, rate in {**family.default_learning_rates(), **layer.learning_rates}.items():
            placed = name in family.position_parameters()
            table[name if len(config.scene) == 1 else f"{layer.name}_{name}"] = {
                "optimizer": RowAdamConfig(lr=rate, eps=options.epsilon, beta_1=options.beta_1, beta_2=options.beta_2),
                "scheduler": DecayConfig(
                    final=options.position_final if placed else options.other_final, warmup=options.warmup
                ),
            }
    table["camera_opt"] = {"optimizer": AdamOptimizerConfig(lr=1e-4, eps=1e-15), "scheduler": DecayConfig(final=0.01)}
    return table


def method(preset: str, description: str) -> MethodSpecification:
    """`smalti-PRESET`."""
    config = resolve(preset)
    return MethodSpecification(
        TrainerConfig(
            method_name=f"smalti-{preset}",
            steps_per_eval_batch=0,
            steps_per_eval_image=500,
            steps_per_eval_all_images=2500,
            steps_per_save=2000,
            max_num_iterations=config.run.steps,
            mixed_precision=False,
            pipeline=VanillaPipelineConfig(
                datamanager=SmaltiDatamanagerConfig(
                    dataparser=NerfstudioDataParserConfig(load_3D_points=True), cache_images_type="uint8"
                ),
                model=SmaltiModelConfig(preset=preset),
            ),
            optimizers=optimizers_of(config),
            viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
            vis="viewer",
        ),
        description,
    )


gaussians = method("gaussians", "Smalti: 3D Gaussians (Kerbl et al. 2023), on CPU too")
gaussians_fast = method("gaussians-fast", "Smalti: 3D Gaussians in 4,000 steps, coarse to fine")
gaussians_mcmc = method("gaussians-mcmc", "Smalti: 3D Gaussians grown by MCMC (Kheradmand et al. 2024)")
ray_gaussians = method("ray-gaussians", "Smalti: 3D Gaussians evaluated along the ray, in exact order")
surfels = method("surfels", "Smalti: Gaussian disks (Huang et al. 2024)")
neural_splats = method("neural-splats", "Smalti: ellipsoids with a neural density (Zhou et al. 2025)")
boxes = method("boxes", "Smalti: volumetric boxes (Lombardi et al. 2021)")
superquadrics = method("superquadrics", "Smalti: textured superquadrics (Monnier et al. 2023)")
meshes = method("meshes", "Smalti: a triangle mesh from the visual hull (pictures with alpha or masks)")
mixed = method("mixed", "Smalti: a mesh and Gaussians in one picture (pictures with alpha or masks)")

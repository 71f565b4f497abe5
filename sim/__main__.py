"""`python -m sim`: the main job, whole regions on this machine."""

import hydra
from omegaconf import DictConfig

from geotrain.program import run_program
from sim.config import register
from sim.demo import run

register()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="sim")
def main(cfg: DictConfig) -> float | None:
    """Returns the localized models' mean metric, for sweeps that optimise it."""
    return run_program(cfg, run)


if __name__ == "__main__":
    main()

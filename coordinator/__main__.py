"""`python -m coordinator`: the daemon that runs jobs."""

import hydra
from omegaconf import DictConfig

from coordinator.config import register
from coordinator.daemon import serve
from geotrain.program import run_program

register()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="coordinator")
def main(cfg: DictConfig) -> None:
    run_program(cfg, serve)


if __name__ == "__main__":
    main()

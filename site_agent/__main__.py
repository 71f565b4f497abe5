"""`python -m site_agent site=ewr`: one region's daemon."""

import hydra
from omegaconf import DictConfig

from geotrain.program import run_program
from site_agent.config import register
from site_agent.daemon import serve

register()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="site_agent")
def main(cfg: DictConfig) -> None:
    run_program(cfg, serve)


if __name__ == "__main__":
    main()

from .config import LoraConfig, ModelConfig
from .latent_chain import LatentChain

__all__ = [
    "LatentChain",
    "LoraConfig",
    "ModelConfig",
]

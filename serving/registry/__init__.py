"""Which models there are: `load_catalogue()` → Catalogue; `find(name)` → Model."""

from serving.registry.catalogue import Catalogue, load_catalogue
from serving.registry.local import model_from_file
from serving.registry.model import Adapter, Architecture, Backend, Model, TensorSum, Variant

__all__ = [
    "Adapter",
    "Architecture",
    "Backend",
    "Catalogue",
    "Model",
    "TensorSum",
    "Variant",
    "load_catalogue",
    "model_from_file",
]

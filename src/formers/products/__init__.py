"""Products with matrices, and their gradients: by tiles (AMX) where the processor has them and they pay, else PyTorch's."""

from formers.products.layers import Matrix, linear, products

__all__ = ["Matrix", "linear", "products"]

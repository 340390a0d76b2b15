"""The two functions of torchvision that nerfstudio calls on the way of these tests. Never installed: `try.sh` puts it
on the path, because torchvision's wheels do not import beside a CPU build of torch.
"""

from torchvision import transforms, utils

__all__ = ["transforms", "utils"]

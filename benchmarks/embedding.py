"Embedding with PMNet alone beside the plain backbone: throughput against what the FLOP count predicts"
import torch
from torch.utils.flop_counter import FlopCounterMode
from _bench import Case, main
from vehicle_reid.pmnet import PMNet, Baseline

ARCH = dict(full=('resnet50',256,8), quick=('resnet50',128,8), tiny=('resnet10t',64,2))
def nets(scale):
    arch,size,bs = ARCH[scale]
    x = torch.randn(bs, 3, size, size).contiguous(memory_format=torch.channels_last)
    n = {k: net.eval().to(memory_format=torch.channels_last) for k,net in dict(pmnet=PMNet(575, arch, pretrained=False), plain=Baseline(575, arch, pretrained=False)).items()}
    return dict(x=x, steps=dict(full=2, quick=4, tiny=1)[scale], **n)

def flops(net, x):
    with FlopCounterMode(display=False) as f, torch.no_grad(): net.embed(x)
    return f.get_total_flops()

def run(which):
    @torch.inference_mode()
    def f(d):
        for _ in range(d['steps']): d[which].embed(d['x'])
        return flops(d[which], d['x'][:1])
    return f
def agree(r): return f"FLOPs predict {r['ours, PMNet only']/r['plain backbone']:.3f}x the plain backbone's time"

if __name__=='__main__':
    main(Case('embedding', nets, {'ours, PMNet only': run('pmnet'), 'plain backbone': run('plain')}, 'plain backbone', agree, memory=False))

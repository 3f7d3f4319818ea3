"Embedding with PMNet alone beside the plain backbone: throughput against what the FLOP count predicts"
import torch
from torch.utils.flop_counter import FlopCounterMode
from _bench import Case, main, once
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

def growth(quick):
    "The streams' widths, which the paper does not give: f_G has `width` numbers, each part half of it"
    d = nets('quick' if quick else 'full')
    out = [once('plain backbone', run('plain'), d, flops=flops(d['plain'], d['x'][:1]), width=0)]
    for w in (128,256,512,1024,2048):
        d['pmnet'] = PMNet(575, ARCH['quick' if quick else 'full'][0], feat_dim=w, pretrained=False).eval().to(memory_format=torch.channels_last)
        out.append(once('PMNet only', run('pmnet'), d, flops=flops(d['pmnet'], d['x'][:1]), width=w))
    return out

if __name__=='__main__':
    main(Case('embedding', nets, {'ours, PMNet only': run('pmnet'), 'plain backbone': run('plain')}, 'plain backbone', agree, memory=False), growth=growth)

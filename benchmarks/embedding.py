"Embedding with PMNet alone beside the plain backbone (the Baseline: last stride 1) and timm's own (last stride 2): time against what the FLOP count predicts"
import pandas as pd, timm, torch
from torch.utils.flop_counter import FlopCounterMode
from _bench import Case, main, once
from training import learner
from vehicle_reid.pmnet import PMNet, Baseline

ARCH = dict(full=('resnet50',256,8), quick=('resnet50',128,8), tiny=('resnet10t',64,2))
def nets(scale):
    arch,size,bs = ARCH[scale]
    x = torch.randn(bs, 3, size, size).contiguous(memory_format=torch.channels_last)
    timm_net = timm.create_model(arch, pretrained=False, num_classes=0)
    timm_net.embed = timm_net.forward
    n = {k: net.eval().to(memory_format=torch.channels_last) for k,net in dict(pmnet=PMNet(575, arch, pretrained=False), plain=Baseline(575, arch, pretrained=False), timm=timm_net).items()}
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
def agree(r): return 'FLOPs predict ' + ', '.join(f"{r['ours, PMNet only']/v:.3f}x the time of {n}" for n,v in r.items() if n!='ours, PMNet only')

def many(n):
    "A learner, and a table of n images"
    learn = learner('tiny')
    items = learn.dls.gallery_items
    return learn, pd.concat([items]*(n//len(items)+1)).head(n)
def embed(d):
    with d[0].no_bar(): return d[0].embed(d[1])

def growth(quick):
    "The streams' widths, which the paper does not give: f_G has `width` numbers, each part half of it"
    out = memory()
    d = nets('quick' if quick else 'full')
    out += [once('plain backbone', run('plain'), d, flops=flops(d['plain'], d['x'][:1]), width=0)]
    for w in (128,256,512,1024,2048):
        d['pmnet'] = PMNet(575, ARCH['quick' if quick else 'full'][0], feat_dim=w, pretrained=False).eval().to(memory_format=torch.channels_last)
        out.append(once('PMNet only', run('pmnet'), d, flops=flops(d['pmnet'], d['x'][:1]), width=w))
    return out

def memory():
    "Before anything larger has run: what that left with the allocator would hide a rise"
    out = []
    for n in (500,1000,2000,4000):
        data = many(n)
        out.append(once('learn.embed', embed, data, calls=0, images=n, result=n*embed((data[0], data[1][:1])).nbytes/2**20))
    return out

if __name__=='__main__':
    main(Case('embedding', nets, {'ours, PMNet only': run('pmnet'), 'plain backbone': run('plain'), "timm's backbone": run('timm')}, 'plain backbone', agree), growth=growth)

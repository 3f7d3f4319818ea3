"PMNet beside timm's backbone with the same settings, training and embedding, on the GPU where there is one: what bfloat16, channels-last, the fused optimizer and torch.compile give, against the matrix rate"
import torch, timm
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from fastai.optimizer import Adam
from _bench import Case, main, _time
from vehicle_reid.learner import FusedAdam
from vehicle_reid.losses import ReIDLoss
from vehicle_reid.parts import uniform_parts
from vehicle_reid.pmnet import PMNet
from vehicle_reid.transfer import part_transfer_loss

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
FAST,SIDE = torch.bfloat16,8192 if DEVICE.type=='cuda' else 1024 # of the matrices whose rate is the floor
def sizes(scale): return dict(full=('resnet50',256,32), quick=('resnet50',128,8), tiny=('resnet10t',64,4))[scale]

def done(f):
    "`f`, waited for"
    def g(d):
        out = f(d)
        if DEVICE.type=='cuda': torch.cuda.synchronize()
        return out
    return g

def rate(dtype, n):
    "Multiply-adds are two: FLOPs a second of an n×n matrix product"
    a,b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in 'ab')
    def product(_): return a@b
    return 2*n**3/min(_time(done(product), 0)[1] for _ in range(6))

class Net:
    "A network, its optimizer and a batch"
    def __init__(self, net, scale, last=True, bf16=True, opt=FusedAdam, compiled=False):
        _,size,self.n = sizes(scale)
        torch.manual_seed(1) # the same batch for all
        layout = torch.channels_last if last else torch.contiguous_format
        self.net,self.bf16 = net.to(DEVICE, memory_format=layout),bf16
        if compiled: self.net.compile()
        self.opt,self.loss_func = opt(list(net.parameters()), lr=1e-4),ReIDLoss()
        self.x = torch.randn(self.n, 3, size, size, device=DEVICE).contiguous(memory_format=layout)
        self.y = torch.arange(self.n, device=DEVICE)//2
        self.parts = uniform_parts(torch.ones(self.n, 1, size, size, device=DEVICE), 3)

    def loss(self):
        with torch.autocast(DEVICE.type, FAST, self.bf16):
            if not isinstance(self.net, PMNet): return F.cross_entropy(self.net(self.x).float(), self.y)
            out = self.net(self.x, self.parts)
        return self.loss_func(out, self.y) + part_transfer_loss(out['maps'])

    def backward(self):
        self.net.train()
        self.opt.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss.detach()

    def step(self):
        loss = self.backward()
        self.opt.step()
        return loss.cpu()

    @torch.inference_mode()
    def embed(self):
        with torch.autocast(DEVICE.type, FAST, self.bf16): return (self.net.eval().embed if isinstance(self.net, PMNet) else self.net.eval())(self.x).float().cpu()

def flops(f):
    with FlopCounterMode(display=False) as c: f()
    return c.get_total_flops()

def pmnet(scale): return PMNet(575, sizes(scale)[0], pretrained=False)
def plain(scale): return timm.create_model(sizes(scale)[0], pretrained=False, num_classes=575)
nets = {'ours, PMNet': lambda s: Net(pmnet(s), s), 'ours in float32': lambda s: Net(pmnet(s), s, bf16=False), 'ours, channels first': lambda s: Net(pmnet(s), s, last=False),
    "ours, fastai's Adam": lambda s: Net(pmnet(s), s, opt=lambda p,lr: Adam(p, lr=lr, sqr_mom=.999, decouple_wd=False)), "timm's backbone": lambda s: Net(plain(s), s)}
if DEVICE.type=='cuda': nets['ours, compiled'] = lambda s: Net(pmnet(s), s, compiled=True)

def all_nets(what):
    def f(scale):
        d = {}
        for n,make in nets.items(): torch.manual_seed(0); d[n] = make(scale)
        return d | dict(rate=rate(FAST, SIDE if scale!='tiny' else 64), flops={n: flops(o.backward if what=='step' else o.embed) for n,o in d.items()})
    return f

def way(name, what): return done(lambda d: (getattr(d[name], what)(), d['flops'][name], d['rate'], d[name].n))
@done
def at_rate(d):
    "As many FLOPs in one matrix product after another"
    a,b = (torch.randn(SIDE, SIDE, device=DEVICE, dtype=FAST) for _ in 'ab')
    for _ in range(max(1, round(d['flops']['ours, PMNet']/(2*SIDE**3)))): a@b
def agree(what):
    "The settings change how PMNet is computed, not what: the first loss, or the vectors, up to bfloat16's three digits"
    def f(r):
        (first,ours,rate,n),(_,theirs,_,_) = r['ours, PMNet'],r["timm's backbone"]
        others = [v[0] for k,v in r.items() if k.startswith('ours')]
        off = max(((o-first)/first).abs().item() if what=='step' else 1-F.cosine_similarity(o, first).min().item() for o in others)
        assert off<.02, off
        return f"{n} images, {DEVICE.type}; {'losses' if what=='step' else 'cosines'} of all PMNets within {off:.1e}; PMNet needs {ours/theirs:.2f}x the FLOPs of timm's backbone; matrix rate {rate/1e12:.2f} TFLOP/s"
    return f

if __name__=='__main__':
    cases = []
    for what,title in (('step','a training step'),('embed','embedding a batch')):
        skip = ("ours, fastai's Adam",) if what=='embed' else ()
        cases.append(Case(title, all_nets(what), {n: way(n, what) for n in nets if n not in skip} | {'matrix products': at_rate}, "timm's backbone", agree(what), 'matrix products', memory='full'))
    main(*cases)

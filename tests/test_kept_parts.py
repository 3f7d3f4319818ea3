"Boxes kept of each image: the very ones PANet finds on it, moved as the image is moved, for the right image of every batch, and never stale"
import numpy as np, pytest, torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.vision.augment import Rotate
from hypothesis import given, strategies as st
from torch import nn
from vehicle_reid.all import FlipPadCrop, KeptParts, PANet, PartMasks, ReIDDataLoaders, synth_veri
from vehicle_reid.parts import box_masks

@pytest.fixture(scope='module')
def path(tmp_path_factory): return synth_veri(tmp_path_factory.mktemp('data')/'synth', n_ids=10, n_test=4, n_cams=3, n_workers=1)

@pytest.fixture(scope='module')
def panet():
    torch.manual_seed(0)
    return PANet(6, 'resnet10t', pretrained=False).eval()

class Notes(nn.Module):
    "A network that keeps what it is shown"
    def __init__(self): super().__init__(); self.w,self.seen = nn.Parameter(torch.zeros(1)),[]
    def forward(self, x, parts=None):
        if self.training: self.seen.append((torch.Tensor(x), parts))
        return self.w*x.mean((1,2,3))

def shown(dls, cb, cbs=()):
    net = Notes()
    learn = Learner(dls, net, loss_func=lambda p,*y: p.square().mean(), cbs=[cb, *cbs], path=dls.train_items.path[0].rsplit('/', 2)[0])
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return net.seen

# --- geometry
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(0, 9))
def test_a_moved_box_is_the_box_of_its_moved_mask(seed, k, pad):
    torch.manual_seed(seed)
    h,w,t = 24,30,FlipPadCrop(pad=pad)
    lo = torch.stack([torch.randint(w-1, (5,k)), torch.randint(h-1, (5,k))], -1)
    boxes = torch.cat([lo, lo+1+(torch.rand(5,k,2)*(torch.tensor([w,h])-lo-1)).long()], -1)
    t.draw(5, 3, h, w)
    got,mask = t.move_boxes(boxes),t.move(box_masks(boxes, h, w))
    assert (got[...,:2]>=0).all() and (got[...,:2]<got[...,2:]).all() and (got[...,2:]<=torch.tensor([w,h])).all()
    seen = mask.flatten(2).any(-1)
    assert torch.equal(box_masks(got, h, w)[seen], mask[seen])
    for m,b in zip(mask[~seen], got[~seen]): assert (b[2]-b[0])*(b[3]-b[1])>=1 # moved out of sight: something is left to look at

# --- the right boxes
def test_kept_is_what_panet_finds(path, panet, tmp_path):
    dls = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, num_workers=0)
    paths = list(dls.train_items.path)
    kept = KeptParts(panet, dls, tmp_path).fill(paths)
    x = torch.cat([torch.Tensor(b[0] if isinstance(b, (tuple,list)) else b) for b in dls.embed_dl(paths)])
    boxes,labels,fg = panet.part_boxes(x)
    rows = [5, 0, len(paths)-1, 5]
    got = kept.read(rows)
    assert torch.equal(got[0], boxes[rows]) and torch.equal(got[1], labels[rows]) and torch.equal(got[2]>.5, fg[rows]>=.5)
    assert {f.stat().st_size for f in kept.folder.iterdir()}=={kept.n_bytes} and kept.n_bytes==5*512+64*64//8+4

@pytest.mark.parametrize('workers,kw', [(0, {}), (2, {}), (0, dict(threshold='half')), (0, dict(temperature=1/32, relative=True))])
def test_every_batch_gets_its_own_images_parts(path, panet, tmp_path, workers, kw):
    dls = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, batch_tfms=[], num_workers=workers)
    seen = shown(dls, PartMasks(panet, random=False, keep_in=tmp_path, **kw))
    assert len(seen)>3
    for x,parts in seen:
        want = panet.part_masks(x, **kw)
        assert torch.equal(parts.boxes, want.boxes) and torch.equal(parts.masks, want.masks)

def test_parts_move_with_the_image(path, panet, tmp_path):
    "An image moved by hand, PANet's parts of the image at rest moved the same way"
    dls = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, erase=0, num_workers=0)
    move = next(f for f in dls.train.after_batch.fs if isinstance(f, FlipPadCrop))
    rests = torch.cat([torch.Tensor(b[0] if isinstance(b, (tuple,list)) else b) for b in dls.embed_dl(list(dls.train_items.path))])
    class Check(Callback):
        order,n = 11,0 # behind PartMasks
        def before_batch(self):
            if not self.training: return
            x,parts = self.learn.xb; rest = rests[self.dl.rows]
            assert torch.equal(torch.Tensor(x), move.move(rest))
            want = panet.part_masks(rest)
            assert torch.equal(parts.boxes, move.move_boxes(want.boxes)) and torch.equal(parts.foreground, move.move((want.foreground>=.5).float()))
            Check.n += 1
    shown(dls, PartMasks(panet, random=False, keep_in=tmp_path), [Check()])
    assert Check.n>3

def test_another_iteration_in_between_confuses_nothing(path, panet, tmp_path):
    dls = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, batch_tfms=[], num_workers=0)
    class Peek(Callback):
        def after_batch(self): self.dls.train.one_batch()
    for x,parts in shown(dls, PartMasks(panet, random=False, keep_in=tmp_path), [Peek()]): assert torch.equal(parts.boxes, panet.part_masks(x).boxes)

def test_picks_differ_from_step_to_step(path, panet, tmp_path):
    dls = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, num_workers=0)
    kept = KeptParts(panet, dls, tmp_path, temperature=1/32, relative=True).fill(list(dls.train_items.path)) # untrained, eq. 1 as it stands leaves too few boxes to choose from
    cb = PartMasks(panet); cb.kept,cb.move = kept,None
    picks = [cb.kept_parts(range(6), 'cpu').boxes for _ in range(8)]
    assert any(not torch.equal(picks[0], o) for o in picks[1:])

# --- when PANet runs on the batch instead
class Counted(PANet):
    calls = 0
    def encode(self, x): Counted.calls += 1; return super().encode(x)

@pytest.mark.parametrize('kw,tfms,fresh', [({}, None, False), (dict(fresh=True), None, True), ({}, [Rotate()], True)])
def test_fresh_where_asked_or_where_images_move_in_unknown_ways(path, tmp_path, kw, tfms, fresh):
    dls = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, batch_tfms=tfms, num_workers=0)
    net,Counted.calls = Counted(6, 'resnet10t', pretrained=False),0
    seen = shown(dls, PartMasks(net, keep_in=tmp_path, **kw))
    assert Counted.calls==(len(seen) if fresh else 1) # one batch of 64 holds all images

# --- never stale
def turned(data, bit):
    data = bytearray(data)
    data[bit//8] ^= 1 << bit%8
    return bytes(data)

def test_a_second_run_finds_everything_there_and_other_weights_nothing(path, panet, tmp_path):
    dls = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, num_workers=0)
    paths = list(dls.train_items.path)
    a = KeptParts(panet, dls, tmp_path).fill(paths)
    times = {p: p.stat().st_mtime_ns for p in a.places}
    a.places[3].write_bytes(b'half a file')
    a.places[1].write_bytes(turned(a.places[1].read_bytes(), bit=777))   # the right length, one bit wrong
    b = KeptParts(panet, dls, tmp_path).fill(paths)
    changed = [p for p in a.places if p.stat().st_mtime_ns!=times[p]]
    assert b.places==a.places and changed==[a.places[1], a.places[3]] and a.places[3].stat().st_size==a.n_bytes
    torch.manual_seed(1)
    other = PANet(6, 'resnet10t', pretrained=False)
    folders = {KeptParts(net, dls, tmp_path, **kw).folder for net,kw in [(panet,{}), (other,{}), (panet,dict(n_parts=4)), (panet,dict(temperature=.5)), (panet,dict(relative=True)), (panet,dict(threshold='half'))]}
    assert len(folders)==6

"Scores of parts against a truth: literal counts, and cases whose answer is known"
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from vehicle_reid.all import PANet, Parts, ReIDDataLoaders, channel_recalibration, component_boxes, synth_veri, uniform_parts
from vehicle_reid.grabcut import grabcut_mask
from vehicle_reid.truth import Truth, channels_left, foreground_iou, main_part, part_choices, part_report, part_scores, read_truth

@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_counts_as_a_loop_would(seed, h, w):
    rng = np.random.default_rng(seed)
    parts,mask = rng.integers(0, 5, (h,w)).astype(np.uint8),rng.random((h,w))
    x0,y0 = rng.integers(0, w),rng.integers(0, h); box = x0,y0,rng.integers(x0, w)+1,rng.integers(y0, h)+1
    n = {}
    for y in range(box[1], box[3]):
        for x in range(box[0], box[2]):
            if parts[y,x]>1: n[parts[y,x]] = n.get(parts[y,x], 0)+1
    part,share = main_part(box, parts)
    assert (part, share)==(0, 0) if not n else n[part]==max(n.values()) and share==pytest.approx(n[part]/sum(n.values()))
    both = sum(mask[i]>=.5 and parts[i]>0 for i in np.ndindex(h,w)); one = sum(mask[i]>=.5 or parts[i]>0 for i in np.ndindex(h,w))
    assert foreground_iou(mask, parts)==pytest.approx(both/max(one, 1))

@pytest.fixture(scope='module')
def known(tmp_path_factory):
    "Four images of 64 pixels: part 2 above and part 3 below, but in the last image only body above, and 4 beside a smaller 3 below"
    folder,maps = tmp_path_factory.mktemp('truth'),[]
    for i in range(4):
        m = np.zeros((64,64), np.uint8); m[:32],m[32:] = 2,3
        if i==3: m[:32],m[32:,:40] = 1,4
        maps.append(m); Image.fromarray(m*50).convert('RGB').save(folder/f'{i}.jpg')
    return Truth([folder/f'{i}.jpg' for i in range(4)], maps, ['background','body','roof','grille','wheel'])

@pytest.fixture(scope='module')
def dls(tmp_path_factory): return ReIDDataLoaders.from_veri(synth_veri(tmp_path_factory.mktemp('d')/'s', n_ids=4, n_test=2, n_cams=3, n_workers=1), size=64, p=2, k=2)

def halves(x):
    "Two boxes, the upper and the lower half, and the upper half as foreground"
    b = torch.tensor([[0,0,64,32],[0,32,64,64]]).expand(len(x),2,4)
    f = torch.zeros(len(x),1,64,64); f[:,:,:32] = 1
    return Parts(b, f.expand(-1,2,-1,-1), f)

def test_scores_that_are_known(known, dls):
    s = part_scores(halves, known, dls, rival=[.4,.5,.6,.4], bs=3)
    assert (s.part_0, s.part_1)==('roof','grille') and (s.same_0, s.same_1, s.same)==(.75,.75,.75) # what holds no part agrees with none
    assert s.IoU==.5 and s.wins==.5 and s.distinct==2 and s.mostly==.75

def test_a_stream_without_any_part(known, dls):
    "Bodies only: no part is ever agreed upon, rather than the background everywhere"
    s = part_scores(halves, known._replace(parts=[np.ones((64,64), np.uint8)]*4), dls)
    assert s.same==0 and s.mostly==0 and s.part_0=='background'

def test_same_need_not_be_mostly(known, dls):
    "Three parts of 40, 30 and 30 percent: the first is the box's, but not most of it"
    m = np.full((64,64), 2, np.uint8); m[:,26:45],m[:,45:] = 3,4
    s = part_scores(halves, known._replace(parts=[m]*4), dls)
    assert s.same==1 and s.mostly==0

def test_report(known, dls):
    torch.manual_seed(0)
    panet = PANet(2, 'resnet10t', pretrained=False)
    r = part_report(panet, known, dls)
    assert list(r.index)==['GrabCut','stripes',*part_choices] and r.loc['stripes','same']==part_scores(lambda x: uniform_parts(torch.ones_like(x[:,:1])), known, dls).same
    x = torch.cat([b[0] if isinstance(b, (tuple,list)) else b for b in dls.embed_dl(known.paths, bs=4)])
    with torch.no_grad(): X = channel_recalibration(panet.eval().encode(torch.Tensor.as_subclass(x, torch.Tensor)))
    centers = [len({(a+c,b+d) for a,b,c,d in o}) for o in component_boxes(X).tolist()]
    assert r.loc['eq. 1 as it stands','centers']==np.mean(centers)
    assert (r.rows[list(part_choices)]>=1).all() and (r.rows[list(part_choices)]<=512).all()

def test_grabcut_is_cut_at_a_half_and_compared_at_the_networks_size(dls, tmp_path):
    "Images of 80 pixels, where the mask has values between 0 and 1, for a network of 64"
    m = np.zeros((80,80), np.uint8); m[20:,10:70] = 2
    Image.fromarray(m*50).convert('RGB').save(tmp_path/'a.jpg')
    truth,at = Truth([tmp_path/'a.jpg'], [m], ['background','body','roof']),((np.arange(64)+.5)*80/64).astype(int)
    g = grabcut_mask(tmp_path/'a.jpg')
    literal = foreground_iou((g>=.5)[at][:,at], m[at][:,at])
    assert ((0<g)&(g<1)).any() and part_report(PANet(2, 'resnet10t', pretrained=False), truth, dls).loc['GrabCut','IoU']==pytest.approx(literal)
    assert literal!=foreground_iou((g>=1)[at][:,at], m[at][:,at])

def test_saturation_is_seen(known, dls):
    "One channel far louder than all others: every row of eq. 1 becomes its row; a temperature keeps them apart"
    panet = PANet(2, 'resnet10t', pretrained=False).eval()
    torch.manual_seed(0)
    X = torch.rand(4,32,4,4); X[:,0] *= 100
    panet.encode = lambda x: X[:len(x)]
    assert channels_left(panet, known, dls).rows<=2
    assert channels_left(panet, known, dls, temperature=1, relative=True).rows>16

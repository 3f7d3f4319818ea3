"Three ways to the largest component, against scikit-image's labels looked at one by one"
import subprocess, sys
import numpy as np, pytest, torch
from hypothesis import example, given, settings, strategies as st
from skimage.measure import label, regionprops
from vehicle_reid import components
from vehicle_reid.components import largest_boxes

def literal(above):
    out = []
    for m in above:
        found = [(-o.area, o.bbox[0], o.bbox[1], o.bbox) for o in regionprops(label(m, connectivity=2))]
        y0,x0,y1,x1 = min(found)[3] if found else (0,0,*m.shape)
        out.append([x0,y0,x1,y1])
    return out

def tiles(above): return components._tiled(above.numpy()).tolist()
def words(above): pytest.importorskip('numba'); return components._by_words(above.numpy()).tolist()
def labels(above): return components._by_labels(above).tolist()
WAYS = tiles,words,labels

def maps(n, h, w, density, seed): return torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) < density

@settings(max_examples=60, deadline=None)
@given(n=st.integers(1,70), h=st.integers(1,20), w=st.integers(1,64), density=st.sampled_from([0.,.1,.3,.45,.6,.9,1.]), seed=st.integers(0,2**31))
@example(n=2, h=3, w=64, density=1., seed=0)
@example(n=65, h=1, w=1, density=.5, seed=0)
def test_every_way_is_the_literal_one(n, h, w, density, seed):
    above = maps(n, h, w, density, seed); want = literal(above.numpy())
    for way in WAYS: assert way(above)==want, way.__name__

SHAPES = dict(
    spiral='11111111 00000001 11111101 10000101 10110101 10111101 10000001 11111111'.split(),
    comb='10101010 10101010 10101010 11111111 01010101 01010101 01010101 01010101'.split(),
    snake='11111111 00000001 11111111 10000000 11111111 00000001 11111111 10000000'.split(),
    corners='10000001 01000010 00100100 00011000 00011000 00100100 01000010 10000001'.split(),
    equal_left_first='00000000 00110110 00110110 00000000 11000011 11000011 00000000 00000000'.split(),
    box_decides='00000100 00001000 00010000 00100001 00000011 00000001 00000000 00000000'.split(),
    one_in_the_corner_of_another='11100100 11001000 10010000 00100000 01000000 10000000 00000000 00000000'.split())

@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('shape', SHAPES)
def test_awkward_shapes(way, shape):
    m = torch.tensor([[[int(o) for o in r] for r in SHAPES[shape]]]).bool()
    for above in (m, ~m, m.flip(1), m.flip(2), m.mT): assert way(above.contiguous())==literal(above.numpy())

@pytest.mark.parametrize('w', [16,65,80])
def test_many_maps_keep_their_order(w):
    "Blocks of 2048 go to threads; wider than a word goes to tiles"
    above = maps(4100, 4, w, .3, 1); above[2047:2049] = False
    assert largest_boxes(above).tolist()==literal(above.numpy())

def test_without_numba_tiles_serve():
    code = """
import sys; sys.modules['numba'] = None
import torch; from vehicle_reid.components import _words, largest_boxes
assert _words() is None
print(largest_boxes(torch.eye(5).bool()[None]).tolist())"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.stdout.strip()=='[[0, 0, 5, 5]]', done.stderr

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_finds_the_same():
    above = maps(3000, 16, 16, .4, 0)
    assert largest_boxes(above.cuda()).tolist()==largest_boxes(above).tolist()

"GrabCut: equality with the procedure written out, one mask per image whatever came before, the cache, bad input"
import multiprocessing, os, threading
import cv2, numpy as np, pytest, torch
from PIL import Image
from vehicle_reid.grabcut import _ellipse, grabcut_mask, grabcut_masks
from vehicle_reid.synth import draw_vehicle, random_camera, random_vehicle

def vehicle(i): return draw_vehicle(random_vehicle(0, i, i), random_camera(0, 1+i), np.random.default_rng(i))
KW = dict(size=48, border=8)

@pytest.fixture
def files(tmp_path):
    (tmp_path/'img').mkdir()
    out = [tmp_path/'img'/f'{i}.png' for i in range(5)]
    for i,f in enumerate(out): Image.fromarray(vehicle(i)[0]).save(f)
    return out

@pytest.mark.parametrize('iters', [1,3])
def test_equals_the_procedure_written_out(iters):
    for i in range(3):
        img = vehicle(i)[0]
        small = cv2.resize(img, (48,48), interpolation=cv2.INTER_AREA)
        padded = np.pad(small, ((8,8),(8,8),(0,0)), mode='edge')[...,::-1].copy()
        labels = np.zeros((64,64), np.uint8)
        cv2.setRNGSeed(0)
        cv2.grabCut(padded, labels, (8,8,48,48), np.zeros((1,65)), np.zeros((1,65)), iters, cv2.GC_INIT_WITH_RECT)
        want = ((labels==1)|(labels==3))[8:56,8:56].astype(np.float32)
        assert .05<want.mean()<.95
        np.testing.assert_array_equal(grabcut_mask(img, iters=iters, **KW), cv2.resize(want, img.shape[1::-1], interpolation=cv2.INTER_LINEAR))

def test_every_form_of_an_image_gives_the_same_mask(files):
    img = vehicle(0)[0]
    want = grabcut_mask(img, **KW)
    assert want.shape==img.shape[:2] and want.dtype==np.float32 and 0<=want.min() and want.max()<=1
    for o in (files[0], str(files[0]), Image.fromarray(img), torch.tensor(img).permute(2,0,1), torch.tensor(img).permute(2,0,1)/255, (img/255).astype(np.float32)):
        np.testing.assert_array_equal(grabcut_mask(o, **KW), want)

def test_finds_drawn_vehicles():
    iou = []
    for i in range(8):
        img,fg,_ = vehicle(i); m = grabcut_mask(img)>.5
        iou.append((m&fg).sum()/(m|fg).sum())
    assert np.mean(iou)>.7

def test_what_was_cut_before_does_not_matter():
    img = vehicle(1)[0]
    want = grabcut_mask(img, **KW)
    for i in (3,4): grabcut_mask(vehicle(i)[0], **KW)
    np.testing.assert_array_equal(grabcut_mask(img, **KW), want)

def test_nothing_to_cut_gives_the_ellipse_and_is_counted(tmp_path):
    plain = np.full((60,80,3), 90, np.uint8)
    np.testing.assert_array_equal(grabcut_mask(plain, **KW), cv2.resize(_ellipse(48), (80,60), interpolation=cv2.INTER_LINEAR))
    Image.fromarray(plain).save(tmp_path/'plain.png'); Image.fromarray(vehicle(0)[0]).save(tmp_path/'v.png')
    masks = grabcut_masks([tmp_path/'plain.png', tmp_path/'v.png'], cache=tmp_path/'c', n_workers=1, **KW)
    assert masks.n_fallback==1 and np.array_equal(masks[0], _ellipse(48)) and '1 of them ellipses' in repr(masks)

def test_workers_and_order_do_not_matter(files, tmp_path):
    one = grabcut_masks(files, cache=tmp_path/'one', n_workers=1, **KW)
    four = grabcut_masks(files[::-1], cache=tmp_path/'four', n_workers=4, **KW)
    for a,b,f in zip(one, list(four)[::-1], files):
        np.testing.assert_array_equal(a, b)
        assert a.shape==(48,48) and set(np.unique(a))<={0,1}
        np.testing.assert_array_equal(cv2.resize(a, vehicle(int(f.stem))[0].shape[1::-1], interpolation=cv2.INTER_LINEAR), grabcut_mask(f, **KW))

def test_cache_knows_content_and_settings(files, tmp_path):
    cache = tmp_path/'c'
    first = grabcut_masks(files, cache=cache, **KW)
    stamps = {p: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert len(stamps)==5
    moved = files[0].rename(files[0].with_name('moved.png'))
    assert grabcut_masks([moved,*files[1:]], cache=cache, **KW).paths==first.paths
    assert {p: p.stat().st_mtime_ns for p in cache.iterdir()}==stamps
    assert grabcut_masks([moved], cache=cache, iters=2, **KW).paths!=first.paths[:1] and len(list(cache.iterdir()))==6
    Image.fromarray(vehicle(7)[0]).save(moved)
    assert grabcut_masks([moved], cache=cache, **KW).paths!=first.paths[:1]

def test_a_half_written_mask_is_not_taken(files, tmp_path):
    cache = tmp_path/'c'
    p = grabcut_masks(files[:1], cache=cache, **KW).paths[0]
    want = cv2.imread(str(p), 0)
    p.rename(p.with_name(p.name+'.1.2.part'))
    assert np.array_equal(cv2.imread(str(grabcut_masks(files[:1], cache=cache, **KW).paths[0]), 0), want)

def _cut(files, cache, q): q.put([m.sum() for m in grabcut_masks(files, cache=cache, n_workers=2, **KW)])
def test_two_processes_share_a_cache(files, tmp_path):
    ctx = multiprocessing.get_context('spawn'); q = ctx.Queue()
    ps = [ctx.Process(target=_cut, args=(files, tmp_path/'c', q)) for _ in range(2)]
    for p in ps: p.start()
    a,b = q.get(timeout=120),q.get(timeout=120)
    for p in ps: p.join()
    assert a==b==[m.sum() for m in grabcut_masks(files, cache=tmp_path/'c', **KW)] and not list((tmp_path/'c').glob('*.part'))

def test_default_cache_is_the_users(files, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'xdg'))
    assert grabcut_masks(files[:1], **KW).paths[0].parent==tmp_path/'xdg'/'vehicle_reid'/'grabcut'

def test_bad_input_stops_before_work(files, tmp_path):
    (tmp_path/'img'/'broken.jpg').write_bytes(b'no image')
    with pytest.raises(RuntimeError, match=r'1 of 6 images cannot be read; nothing was cut.*broken\.jpg'): grabcut_masks([*files, tmp_path/'img'/'broken.jpg'], cache=tmp_path/'c', **KW)
    assert not list((tmp_path/'c').glob('*.png'))
    with pytest.raises(FileNotFoundError, match=r'1 of 1 images are not there.*gone\.jpg'): grabcut_masks([tmp_path/'gone.jpg'], cache=tmp_path/'c')
    for kw in (dict(size=4), dict(border=0), dict(iters=0)):
        with pytest.raises(ValueError, match='GrabCut needs'): grabcut_mask(vehicle(0)[0], **kw)
    with pytest.raises(ValueError, match='normalisation'): grabcut_mask(torch.randn(3,20,20)*3)
    with pytest.raises(ValueError, match='shape'): grabcut_mask(np.zeros((20,20)))
    masks = grabcut_masks(files[:1], cache=tmp_path/'c', **KW); masks.paths[0].unlink()
    with pytest.raises(FileNotFoundError, match='grabcut_masks again'): masks[0]

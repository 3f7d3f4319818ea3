"Image files of every kind, sound and otherwise: one function opens them all, to the same pixels or to one error"
import io, os, resource, shutil, struct, subprocess, sys, warnings, zlib
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image, ImageFile
from vehicle_reid import show
from vehicle_reid.data import ReIDDataLoaders
from vehicle_reid.datasets import UnreadableImage, open_image, verify_images
from vehicle_reid.grabcut import grabcut_mask, grabcut_masks
from vehicle_reid.gallery import Gallery # learn.gallery
from vehicle_reid.learner import reid_learner
from test_datasets import picture, toy_veri

def rgb(path): return np.asarray(open_image(path))
ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (24,1))

@pytest.mark.parametrize('name,image', [('L.png', Image.fromarray(ramp)), ('16.png', Image.fromarray(ramp.astype(np.uint16)*257)), ('16.tif', Image.fromarray(ramp.astype(np.uint16)*257)),
    ('F.tif', Image.fromarray(ramp.astype(np.float32)/255)), ('F255.tif', Image.fromarray(ramp.astype(np.float32))), ('1.png', Image.fromarray(ramp>100)), ('LA.png', Image.merge('LA', (Image.fromarray(ramp), Image.new('L', (64,24), 255))))])
def test_grey_of_every_depth(tmp_path, name, image):
    image.save(tmp_path/name); a = rgb(tmp_path/name)
    assert a.shape==(24,64,3) and a.dtype==np.uint8 and (a[...,0]==a[...,2]).all()
    np.testing.assert_allclose(a[0,:,0], 255*(ramp[0]>100) if name=='1.png' else ramp[0], atol=1)

def test_cmyk_palette_and_alpha(tmp_path):
    Image.new('CMYK', (9,9), (0,255,255,0)).save(tmp_path/'c.jpg'); assert rgb(tmp_path/'c.jpg')[4,4,0]>200 and rgb(tmp_path/'c.jpg')[4,4,1]<60
    Image.new('RGB', (9,9), (10,200,30)).quantize(4).save(tmp_path/'p.png'); assert rgb(tmp_path/'p.png')[4,4].tolist()==[10,200,30]
    half = Image.new('RGBA', (9,9), (255,0,0,255)); half.paste((0,0,255,0), (0,0,9,4)); half.save(tmp_path/'a.png'); half.save(tmp_path/'a.webp', lossless=True)
    for n in ('a.png','a.webp'): assert rgb(tmp_path/n)[0,0].tolist()==[124,116,104] and rgb(tmp_path/n)[8,8].tolist()==[255,0,0]
    p = Image.new('RGB', (9,9), (0,255,0)).quantize(4); p.save(tmp_path/'t.gif', transparency=0); assert rgb(tmp_path/'t.gif').shape==(9,9,3)

@pytest.mark.parametrize('turn,size', [(1,(30,20)), (3,(30,20)), (6,(20,30)), (8,(20,30))])
def test_exif_turns_the_image_everywhere(tmp_path, turn, size):
    a = np.zeros((20,30,3), np.uint8); a[:10,:15] = 255
    exif = Image.Exif(); exif[0x112] = turn
    Image.fromarray(a).save(tmp_path/'x.jpg', exif=exif, quality=95)
    im = open_image(tmp_path/'x.jpg')
    light = dict(zip((1,3,6,8), ((0,0),(1,1),(1,0),(0,1))))[turn] # corner x, y
    assert im.size==size and np.asarray(im)[min(light[1]*size[1], size[1]-1),min(light[0]*size[0], size[0]-1)].min()>200
    assert show._rgb(tmp_path/'x.jpg').size==size and grabcut_mask(tmp_path/'x.jpg').shape==size[::-1]

def test_the_first_of_several_pictures(tmp_path):
    frames = [Image.new('RGB', (12,8), c) for c in ('red','blue')]
    for n in ('a.gif','a.webp','a.png','a.tif'):
        frames[0].save(tmp_path/n, save_all=True, append_images=frames[1:], **(dict(lossless=True) if n=='a.webp' else {}))
        assert rgb(tmp_path/n)[4,6].tolist()==[255,0,0], n

def png(w, h, data=b''):
    "A PNG whose header promises w × h pixels"
    def chunk(kind, body): return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind+body))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')

def test_a_small_file_that_promises_billions_of_pixels_takes_no_memory(tmp_path):
    (tmp_path/'bomb.png').write_bytes(png(50_000, 50_000, b'\0'*10_000_000))
    Image.new('1', (12_000,12_000)).save(tmp_path/'white.png') # real, and 400 MB as RGB
    code = f"""
import resource; from vehicle_reid.datasets import open_image, UnreadableImage
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for n in ('bomb.png','white.png'):
    try: open_image({str(tmp_path)!r}+'/'+n); raise SystemExit(n)
    except UnreadableImage as e: assert 'pixels' in str(e), e
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before<50_000"""
    done = subprocess.run([sys.executable, '-W', 'error::UserWarning', '-c', code], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-1500:]

@pytest.mark.parametrize('size', [(1,1), (1,10_000), (10_000,1)])
def test_odd_shapes_are_images(tmp_path, size):
    Image.new('RGB', size, 'red').save(tmp_path/'x.png')
    assert open_image(tmp_path/'x.png').size==size and grabcut_mask(tmp_path/'x.png').shape==size[::-1]

@pytest.mark.parametrize('make', [lambda p: p.write_bytes(b''), lambda p: p.write_text('words'), lambda p: p.mkdir(), lambda p: p.symlink_to(p.name), lambda p: os.mkfifo(p), lambda p: p.symlink_to('/dev/zero'), lambda p: None,
    lambda p: (Image.effect_noise((80,80), 90).save(p), p.write_bytes(p.read_bytes()[:900]))])
def test_what_is_no_image(tmp_path, make):
    make(tmp_path/'x.jpg')
    with pytest.raises(UnreadableImage, match='x.jpg') as e: open_image(tmp_path/'x.jpg')
    assert e.value.why and list(verify_images(pd.DataFrame(dict(path=[str(tmp_path/'x.jpg')])), progress=False).index)==[0]

def test_truncated_images_stay_errors_beside_fastai(): assert not ImageFile.LOAD_TRUNCATED_IMAGES

@pytest.mark.parametrize('name', ['a b.jpg','ü車.jpg','new\nline.jpg',"quote'.jpg",'percent%20.jpg','#hash?.jpg'])
def test_paths_of_every_kind(tmp_path, name):
    Image.new('RGB', (8,8), 'red').save(tmp_path/name)
    assert rgb(tmp_path/name)[4,4,0]>200 and len(grabcut_masks([tmp_path/name], cache=tmp_path/'masks'))==1
    (tmp_path/name).write_bytes(b'x')
    with pytest.raises(UnreadableImage) as e: open_image(tmp_path/name)
    assert '\n' not in str(e.value)

# ---- fuzz: `FUZZ=20000 pytest tests/test_images.py -k fuzz` for a long run ---------------------------------------------------------

def encoded(fmt, **kw):
    f = io.BytesIO(); Image.effect_noise((40,30), 60).convert('RGB').save(f, fmt, **kw)
    return f.getvalue()
KINDS = dict(jpg=encoded('JPEG'), progressive=encoded('JPEG', progressive=True), png=encoded('PNG'), gif=encoded('GIF'), webp=encoded('WEBP'), bmp=encoded('BMP'), tif=encoded('TIFF', compression='tiff_lzw'), ico=encoded('ICO'))

@pytest.mark.parametrize('kind', KINDS)
def test_fuzz(tmp_path, kind):
    old,file = KINDS[kind],tmp_path/'x'
    change = st.tuples(st.floats(0, 1), st.integers(0, 30), st.binary(max_size=12))
    @settings(max_examples=int(os.environ.get('FUZZ', 250)), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(change, min_size=1, max_size=5), st.floats(.02, 1))
    def run(changes, keep):
        data = old
        for at,cut,new in changes: i = int(at*len(data)); data = data[:i] + new + data[i+cut:]
        file.write_bytes(data[:int(keep*len(data))] if keep<.9 else data)
        try: im = open_image(file)
        except UnreadableImage as e: assert str(file) in str(e) and len(str(e))<600
        else: assert im.mode=='RGB' and im.width*im.height<=100_000_000
    run()

# ---- unreadable='replace' ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def broken(tmp_path):
    "VeRi layout with a broken training image, a broken query and a broken gallery image"
    path = toy_veri(tmp_path/'VeRi', size=(40,32))
    train,query,test = (sorted((path/f'image_{o}').iterdir()) for o in ('train','query','test'))
    bad = [train[1], query[0], [t for t in test if t.name not in {q.name for q in query}][2]]
    for b in bad: b.write_bytes(b.read_bytes()[:150])
    return path,list(map(str, bad))

def loaders(path, **kw): return ReIDDataLoaders.from_veri(path, size=32, p=4, k=6, **kw)

def test_the_default_is_to_raise(broken):
    path,bad = broken
    with pytest.raises(UnreadableImage, match=r'row \d+'):
        for _ in loaders(path).train: pass
    with pytest.raises(ValueError, match="unreadable='skip' is neither"): loaders(path, unreadable='skip')

@pytest.mark.parametrize('workers', [0,2])
def test_replaced_in_training_and_told_once(broken, workers, capfd):
    path,bad = broken; dls = loaders(path, unreadable='replace', num_workers=workers)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        for _ in range(3):
            for x,y in dls.train: assert x.isfinite().all()
    told = sum(bad[0] in str(o.message) for o in w) + capfd.readouterr().err.count(f'cannot read image {bad[0]}')
    assert told==1 and list(dls.unreadable.path)==[bad[0]]

def test_the_stand_in_is_of_the_same_vehicle(broken):
    path,bad = broken; dls = loaders(path, unreadable='replace', batch_tfms=[])
    i = list(dls.train_items.path).index(bad[0]); vid = dls.train_items.vid[i]
    with pytest.warns(UserWarning, match='It is replaced in training, and left out of evaluation'): x,y = dls.train_ds[i]
    same = [np.asarray(dls.train_ds[j][0]) for j in np.flatnonzero((dls.train_items.vid==vid) & (dls.train_items.path!=bad[0]))]
    assert any((np.asarray(x)==o).all() for o in same) and dls.vocab[y]==vid

def test_a_vehicle_without_a_readable_image(broken):
    path,bad = broken
    for f in (path/'image_train').glob('0001_*'): f.write_bytes(b'')
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match='None of the 6 images of vehicle 1 can be read'):
        for _ in loaders(path, unreadable='replace').train: pass

def test_left_out_of_evaluation_and_counted(broken, tmp_path):
    path,bad = broken
    def learner(dls): torch.manual_seed(0); return reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, path=tmp_path)
    learn = learner(loaders(path, unreadable='replace'))
    with learn.no_bar(), warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always'); got = learn.evaluate(); learn.validate()
    said = [str(o.message) for o in w]
    assert sum('1 of 3 images cannot be read and are left out' in o for o in said)==1 and sum('1 of 18 images cannot' in o for o in said)==1
    items = learn.dls.items; sound = items[~items.path.isin(bad)].reset_index(drop=True)
    from vehicle_reid.datasets import unmatched
    plain = learner(ReIDDataLoaders.from_df(sound, size=32, p=4, k=6))
    with plain.no_bar(): want = plain.evaluate()
    pd.testing.assert_series_equal(got, want); assert learn.re_id_metrics.values['mAP']==pytest.approx(want['mAP'])
    with learn.no_bar(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        f = learn.embed(learn.dls.query_items); assert f.isnan().all(1).tolist()==[p in bad for p in learn.dls.query_items.path]
        assert len(learn.gallery(learn.dls.gallery_items))==17 and len(learn.interpret().queries)==2

def test_two_stages_on_a_set_with_broken_images(broken, tmp_path):
    path,bad = broken; torch.manual_seed(0)
    learn = reid_learner(loaders(path, unreadable='replace'), 'resnet10t', pretrained=False, feat_dim=32, path=tmp_path)
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore'); learn.fit_two_stage(1, 1, folder=tmp_path/'run', cache=tmp_path/'masks', panet_bs=8)
    assert (tmp_path/'run'/'reid.json').exists() and set(learn.dls.unreadable.path)==set(bad)

"synth_veri: layout, truth, the same bytes always, resuming, and a projection and an occlusion order that are right"
import hashlib, json, subprocess, sys
import xml.etree.ElementTree as ET
import cv2, numpy as np, pytest
from vehicle_reid import synth
from vehicle_reid.datasets import check_items, read_veri
from vehicle_reid.synth import Canvas, _plan_shots, draw_vehicle, kinds, part_names, random_camera, random_vehicle, synth_veri

SMALL = dict(n_ids=9, n_test=3, n_cams=4, n_passes=3, size=120)
def digest(path): return {str(p.relative_to(path)): hashlib.md5(p.read_bytes()).hexdigest() for p in sorted(path.rglob('*')) if p.is_file()}

@pytest.fixture(scope='module')
def path(tmp_path_factory): return synth_veri(tmp_path_factory.mktemp('synth')/'a', n_workers=1, **SMALL)

# ---- bytes --------------------------------------------------------------------------------------------------------------------------

def test_same_bytes_for_any_number_of_workers_and_other_bytes_for_another_seed(path, tmp_path):
    assert digest(synth_veri(tmp_path/'two', n_workers=2, **SMALL))==digest(path)
    other = digest(synth_veri(tmp_path/'seed', n_workers=1, seed=1, **SMALL))
    assert not set(other.values()) & {v for k,v in digest(path).items() if k.endswith('.jpg')}

def test_a_stopped_run_goes_on_with_what_is_missing(path, tmp_path):
    whole = digest(path)
    again = synth_veri(tmp_path/'b', n_workers=1, **SMALL)
    images = sorted((again/'image_train').glob('*.jpg'))
    kept = images[0].stat().st_mtime_ns
    for f in images[5:]: f.unlink()
    (again/'image_train'/f'{images[6].stem}.1.part.jpg').write_bytes(b'half') # what a killed process leaves
    (again/'image_train'/f'{images[6].stem}.1.part.jpg').unlink()
    synth_veri(again, n_workers=1, **SMALL)
    assert digest(again)==whole and images[0].stat().st_mtime_ns==kept

def test_a_plain_script_with_threads_at_work_does_not_hang(path, tmp_path):
    "No `if __name__ == '__main__'`, and OpenCV's own threads running: forked workers wait for these for ever"
    (tmp_path/'script.py').write_text(f"""import cv2, numpy as np
cv2.setNumThreads(4); cv2.GaussianBlur(np.zeros((1500,1500), np.uint8), (0,0), 9)
from vehicle_reid.synth import synth_veri
synth_veri({str(tmp_path/'c')!r}, n_workers=2, **{SMALL!r})""")
    subprocess.run([sys.executable, str(tmp_path/'script.py')], check=True, timeout=120, capture_output=True)
    assert digest(tmp_path/'c')==digest(path)

def test_numpy_and_opencv_only():
    code = "import sys, vehicle_reid.synth as s; print([m for m in ('torch','fastai','timm','PIL','matplotlib','scipy','sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()=='[]'

# ---- layout and truth ---------------------------------------------------------------------------------------------------------------

def test_layout_is_that_of_veri(path):
    df = check_items(read_veri(path))
    ids = {s: set(df[df.split==s].vid) for s in ('train','query','gallery')}
    assert len(ids['train'])==6 and ids['query']==ids['gallery'] and len(ids['query'])==3 and not ids['train']&ids['query']
    assert df.cam.between(1,4).all() and df.groupby('vid').cam.nunique().eq(3).all()
    for s,f in (('train','train'), ('gallery','test')):
        items = ET.fromstring((path/f'{f}_label.xml').read_bytes().decode('gb2312').split('?>',1)[1]).findall('.//Item')
        assert len(items)==(df.split==s).sum()
        assert all(i.get('imageName')[:4]==i.get('vehicleID') and i.get('imageName')[5:9]==i.get('cameraID') for i in items)
    q,g = [(path/f'name_{s}.txt').read_text().split() for s in ('query','test')]
    for name,gt,jk in zip(q, (path/'gt_index.txt').read_text().splitlines(), (path/'jk_index.txt').read_text().splitlines()):
        same = {i+1 for i,o in enumerate(g) if o[:4]==name[:4]}
        junk = {i for i in same if g[i-1][5:9]==name[5:9]}
        assert {int(o) for o in gt.split()}==same-junk and {int(o) for o in jk.split()}==junk and same-junk

def test_truth_fits_its_image(path):
    names = json.loads((path/'truth'/'truth.json').read_text())['labels']
    assert names==part_names
    for f in sorted((path/'image_train').glob('*.jpg')):
        img,fg,parts = cv2.imread(str(f)),*(cv2.imread(str(path/'truth'/d/f'{f.stem}.png'), -1) for d in ('foreground','part'))
        assert img.shape[:2]==fg.shape==parts.shape and set(np.unique(fg))<={0,255} and parts.max()<len(names)
        assert np.array_equal(fg>0, parts>0) and .15<(fg>0).mean()<.95, f
        assert max(img.shape[:2])<=1.1*120 and len(np.unique(parts))>=5

def test_groups_share_model_and_paint_and_differ_in_little():
    camera = random_camera(0, 1)
    def draw(vid, group=0): return draw_vehicle(random_vehicle(0, group, vid), camera, np.random.default_rng(3), occlude=0)[0].astype(int)
    twins = [random_vehicle(0, 0, v) for v in range(1,7)]
    assert len({(v['kind'],v['color'],v['length'],tuple(v['paint'])) for v in twins})==1 and len({json.dumps(v, sort_keys=True) for v in twins})==6
    a = draw(1)
    same = [np.abs(a-b).mean() for b in map(draw, range(2,7)) if b.shape==a.shape]
    far = [np.abs(a-b).mean() for b in (draw(v, g) for v in (1,2) for g in range(1,12)) if b.shape==a.shape]
    assert same and min(same)>.1 and (not far or np.mean(same)<.6*np.mean(far))
    rows = _plan_shots(150, 50, 12, 6, 6, 0)
    of = {r[0]: r[1] for r in rows}
    assert max(np.bincount(list({g: i for i,g in enumerate(set(of.values()))}[g] for g in of.values())))==6
    assert not {r[1] for r in rows if r[5]=='train'} & {r[1] for r in rows if r[5]!='train'}

# ---- geometry -----------------------------------------------------------------------------------------------------------------------

def test_projection_is_a_pinhole():
    "Similar triangles, written out: right, down and depth of a point in the camera's own axes"
    eye,target = np.array((6.,-8.,3.)),np.array((0.,0.,.7))
    cv = Canvas(eye, target, {})
    P = np.random.default_rng(0).uniform(-2, 2, (20,3))
    ahead = (target-eye)/np.linalg.norm(target-eye)
    right = np.array((ahead[1],-ahead[0],0))/np.hypot(*ahead[:2])
    down = np.array([ahead[1]*right[2]-ahead[2]*right[1], ahead[2]*right[0]-ahead[0]*right[2], ahead[0]*right[1]-ahead[1]*right[0]])
    for p,uv in zip(P, cv.project(P)):
        depth = (p-eye)@ahead
        np.testing.assert_allclose(uv, [(p-eye)@right/depth, (p-eye)@down/depth], atol=1e-9)
    assert cv.project([(0,0,2.)])[0,1]<cv.project([(0,0,0.)])[0,1] # up is up

@pytest.mark.parametrize('kind', list(kinds))
def test_hidden_surfaces(kind):
    "From ahead no tail light is seen, from behind no head light; from each side only that side's wheels"
    g = next(g for g in range(400) if random_vehicle(0, g, 1)['kind']==kind)
    v,cam = random_vehicle(0, g, 1),random_camera(0, 1)
    def seen(heading):
        parts = draw_vehicle(v, dict(cam, heading=heading, spread=0), np.random.default_rng(0), occlude=0)[2]
        return {part_names[i] for i in np.unique(parts)},parts
    front,back,side = seen(15)[0],seen(165)[0],seen(90)
    assert 'headlight' in front and 'tail_light' not in front
    assert 'tail_light' in back and 'headlight' not in back
    wheels = (side[1]==part_names.index('wheel')).astype(np.uint8)
    n,_,stats,_ = cv2.connectedComponentsWithStats(wheels)
    assert (stats[1:,4]>.1*stats[1:,4].max()).sum()==2

def test_a_load_hides_nothing_of_the_cab_from_ahead(monkeypatch):
    "Windscreen, lamps, grille and bonnet of a truck cover the same pixels with its load as without"
    g = next(g for g in range(400) if random_vehicle(0, g, 1)['kind']=='truck')
    v,front = random_vehicle(0, g, 1),[part_names.index(n) for n in ('windscreen','headlight','grille_bumper','hood')]
    def parts(heading): return draw_vehicle(v, dict(random_camera(0, 1), heading=heading, spread=0), np.random.default_rng(0), occlude=0)[2]
    with_load = {h: parts(h) for h in (0,15,-40)}
    monkeypatch.setattr(synth, '_load', lambda cv, v: None)
    for h,p in with_load.items():
        bare = parts(h)
        assert (bare!=p).any()
        for i in front: assert np.array_equal(p==i, bare==i), (h, part_names[i])

# ---- bad input ----------------------------------------------------------------------------------------------------------------------

def test_bad_input_changes_nothing(path, tmp_path):
    before = digest(path)
    with pytest.raises(ValueError, match=r'seed=0.*another folder'): synth_veri(path, n_workers=1, seed=5, **SMALL)
    assert digest(path)==before
    (tmp_path/'mine').mkdir(); (tmp_path/'mine'/'thesis.tex').write_text('x')
    with pytest.raises(ValueError, match='not ours'): synth_veri(tmp_path/'mine', **SMALL)
    assert [p.name for p in (tmp_path/'mine').iterdir()]==['thesis.tex']
    for bad in (dict(n_cams=1), dict(n_test=9), dict(n_test=0)):
        with pytest.raises(ValueError, match='n_cams='): synth_veri(tmp_path/'new', **{**SMALL, **bad})
    assert not (tmp_path/'new').exists()

"Readers of each layout with its traps, the checks on a table, and what bad input says"
import os
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from PIL import Image
from vehicle_reid.datasets import (camera_of, check_items, read_folder, read_occluded_veri, read_table, read_vehicleid, read_veri,
    unmatched, verify_images)

def picture(path, color='gray', size=(24,20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, color).save(path)

def toy_veri(path, ids=(1,3,7,41,100,101,102), n_test=3, cams=(1,2,13), images=2, size=(24,20)):
    "VeRi-776 layout: the last `n_test` vehicles are for the test, their first camera's first image also a query; labels know no last image"
    names = dict(train=[], query=[], test=[])
    for v in ids:
        for i,(c,n) in enumerate((c,n) for c in cams for n in range(images)):
            name = f'{v:04}_c{c:03}_{1000*c+n:08}_{n}.jpg'
            for s in ['train'] if v not in ids[-n_test:] else ['query','test'] if i==0 else ['test']:
                names[s].append(name)
                picture(path/f'image_{s}'/name, (v*40%256, c*19, 60*n+v%60), size)
    for s,ns in names.items(): (path/f'name_{s}.txt').write_text('\n'.join(reversed(ns))+'\n')
    for s in ('train','test'):
        known = [(n, int(n[:4])%10, 0 if int(n[:4]) in (1,3,7,41) else 5) for n in names[s][:-1]]
        items = ''.join(f'<Item imageName="{n}" vehicleID="{n[:4]}" cameraID="{n[5:9]}" colorID="{c}" typeID="{t}" />' for n,c,t in known)
        text = f'<?xml version="1.0" encoding="gb2312"?>\n<TrainingImages><!-- 车辆 --><Items number="9">{items}</Items></TrainingImages>'
        (path/f'{s}_label.xml').write_bytes(text.encode('gb2312'))
    return path

@pytest.fixture
def veri(tmp_path): return toy_veri(tmp_path/'VeRi')

# ---- VeRi-776 ---------------------------------------------------------------------------------------------------------------------

def test_veri_table(veri):
    df = check_items(read_veri(veri))
    assert list(df.columns)==['path','vid','cam','split','frame','color','type']
    assert df.split.value_counts().to_dict()==dict(train=24, gallery=18, query=3)
    assert list(df.split.unique())==['train','query','gallery'] and list(df.index)==list(range(45))
    for o in df.itertuples():
        v,c,f,_ = Path(o.path).stem.split('_')
        assert (o.vid,o.cam,o.frame)==(int(v),int(c[1:]),int(f)) and os.path.isfile(o.path)
    assert set(df.cam)=={1,2,13} # three digits, not one

def test_veri_keeps_the_order_of_its_lists(veri):
    df = read_veri(veri)
    for s,n in dict(train='train', query='query', gallery='test').items():
        assert [Path(p).name for p in df.path[df.split==s]] == (veri/f'name_{n}.txt').read_text().split()

def test_veri_labels_by_vehicle(veri):
    df = read_veri(veri)
    assert (df.color==df.vid%10).all() # also for the images that the XML lacks
    assert df.groupby('vid')['type'].unique().map(list).to_dict()=={1:[0], 3:[2], 7:[2], 41:[2], 100:[5], 101:[5], 102:[5]}

def test_queries_stand_in_the_gallery_too(veri):
    df = read_veri(veri)
    q,g = ({Path(p).name for p in df.path[df.split==s]} for s in ('query','gallery'))
    assert q<=g and not df.path.duplicated().any()

def test_veri_without_lists_or_labels(veri):
    with_lists = read_veri(veri)
    for f in veri.glob('*.txt'): f.unlink()
    for f in veri.glob('*.xml'): f.unlink()
    (veri/'image_test'/'Thumbs.db').write_bytes(b'x')
    df = read_veri(veri)
    assert set(df.path)==set(with_lists.path) and set(df.color)==set(df['type'])=={-1}
    for s in ('train','query','gallery'): assert list(df.path[df.split==s])==sorted(df.path[df.split==s])

@pytest.mark.parametrize('spoil,error,says', [
    (lambda p: p.rename(p.with_name('away')), FileNotFoundError, 'not a folder.*image_train, image_query and image_test'),
    (lambda p: (p.rename(p.with_name('away')), p.mkdir()), FileNotFoundError, 'empty folder'),
    (lambda p: (p/'image_query').rename(p/'queries'), FileNotFoundError, 'lacks image_query'),
    (lambda p: (p/'image_train'/'0001_c001_00001000_0.jpg').unlink(), FileNotFoundError,
        r'1 of the 24 images named in .*name_train.txt.*0001_c001_00001000_0.jpg'),
    (lambda p: (p/'name_test.txt').write_text(''), ValueError, 'name_test.txt names no image'),
    (lambda p: (p/'name_train.txt').write_text('car.jpg\n1_c1_2_3.jpg\n'), ValueError,
        '1 images in .*name_train.txt are not named.*car.jpg.*read_table'),
    (lambda p: (p/'train_label.xml').write_text('<a><b>'), ValueError, 'train_label.xml is not readable as XML'),
])
def test_veri_bad_input(veri, spoil, error, says):
    spoil(veri)
    with pytest.raises(error, match=says): read_veri(veri)

def test_veri_empty_folder_of_images(veri):
    (veri/'name_query.txt').unlink()
    for f in (veri/'image_query').iterdir(): f.unlink()
    with pytest.raises(ValueError, match='image_query names no image'): read_veri(veri)

# ---- VehicleID --------------------------------------------------------------------------------------------------------------------

def toy_vehicleid(path, shuffle=False):
    (path/'train_test_split').mkdir(parents=True)
    for name,ids in (('train_list',range(1,4)), ('test_list_800',range(4,9)), ('test_list_1600',range(4,12))):
        lines = [f'{v*100+i:07} {v}' for v in ids for i in range(v)]
        (path/'train_test_split'/f'{name}.txt').write_text('\n'.join(reversed(lines) if shuffle else lines)+'\n')
        for l in lines: picture(path/'image'/f'{l.split()[0]}.jpg')
    return path

def test_vehicleid_protocol(tmp_path):
    path = toy_vehicleid(tmp_path/'V')
    df = check_items(read_vehicleid(path))
    g,q = df[df.split=='gallery'],df[df.split=='query']
    assert list(g.vid)==[4,5,6,7,8] and q.vid.value_counts().to_dict()=={v: v-1 for v in range(4,9)}
    assert set(df.cam)=={-1} and not set(g.path)&set(q.path) and list(df[df.split=='train'].vid.unique())==[1,2,3]
    assert len(read_vehicleid(path, 'medium').query('split=="gallery"'))==8==len(read_vehicleid(path, 1600).query('split=="gallery"'))

def test_vehicleid_draws(tmp_path):
    path,other = toy_vehicleid(tmp_path/'V'),toy_vehicleid(tmp_path/'W', shuffle=True)
    draw = lambda p,**kw: [Path(o).name for o in read_vehicleid(p, 'medium', **kw).query('split=="gallery"').path]
    np.random.seed(0); a = draw(path, trial=3)
    np.random.seed(1); assert a==draw(path, trial=3)==draw(other, trial=3) # neither the global generator nor the order of lines counts
    assert len({tuple(draw(path, trial=t)) for t in range(10)})==10 and draw(path, trial=3, seed=1)!=a
    counts = pd.Series([o for t in range(80) for o in draw(path, trial=t) if o.startswith('00004')]).value_counts()
    assert len(counts)==4 and counts.min()>7 # each of vehicle 4's images has its turn

@pytest.mark.parametrize('spoil,size,error,says', [
    (lambda p: None, 'huge', FileNotFoundError, "test_list_huge.txt.*as size 'small', 'medium', 'large'"),
    (lambda p: (p/'train_test_split'/'train_list.txt').unlink(), 'small', FileNotFoundError, 'lacks train_test_split/train_list.txt'),
    (lambda p: (p/'train_test_split'/'train_list.txt').write_text('0000001 1\n0000002\n'), 'small', ValueError,
        "1 lines of .*train_list.txt are not 'image vehicle'.*0000002"),
])
def test_vehicleid_bad_input(tmp_path, spoil, size, error, says):
    path = toy_vehicleid(tmp_path/'V'); spoil(path)
    with pytest.raises(error, match=says): read_vehicleid(path, size)

# ---- occluded VeRi ----------------------------------------------------------------------------------------------------------------

def test_occluded_veri_from_folder_and_list(veri, tmp_path):
    plain = read_veri(veri)
    for n in ('0100_c001_00001000_0.jpg','0102_c013_00013001_1.jpg'): picture(tmp_path/'small'/n)
    (tmp_path/'gallery.txt').write_text('VeRi/image_test/0100_c002_00002000_0.jpg\nVeRi/image_test/0102_c002_00002000_0.jpg\n')
    df = check_items(read_occluded_veri(veri, tmp_path/'small', tmp_path/'gallery.txt'))
    assert df.split.value_counts().to_dict()==dict(train=24, query=2, gallery=2) and list(df.vid[df.split=='query'])==[100,102]
    large = check_items(read_occluded_veri(veri, tmp_path/'small'))
    assert set(large.path[large.split=='gallery'])==set(plain.path[plain.split=='gallery'])
    with pytest.raises(FileNotFoundError, match='neither a folder nor a list'): read_occluded_veri(veri, tmp_path/'nothing')
    picture(tmp_path/'wrong'/'car.jpg')
    with pytest.raises(ValueError, match='wrong.*car.jpg'): read_occluded_veri(veri, tmp_path/'wrong')

# ---- own data ---------------------------------------------------------------------------------------------------------------------

def toy_folder(path, names=('red van','007'), test=('taxi',)):
    for n in names: picture(path/'train'/n/'a.jpg'); picture(path/'train'/n/'b_c004_.PNG')
    for n in test: picture(path/'query'/n/'c001_x.jpg'); picture(path/'gallery'/n/'x_c2.jpg'); picture(path/'gallery'/n/'y.jpg')
    (path/'train'/'note.txt').write_text('not a vehicle')
    return path

def test_folder(tmp_path):
    df = check_items(read_folder(toy_folder(tmp_path/'own')))
    assert df.groupby('name').vid.first().to_dict()=={'007':0, 'red van':1, 'taxi':2}
    assert dict(zip(df.path.map(os.path.basename), df.cam))=={'a.jpg':-1, 'b_c004_.PNG':4, 'c001_x.jpg':1, 'x_c2.jpg':2, 'y.jpg':-1}
    assert set(read_folder(tmp_path/'own', camera=len).cam)=={len(Path(p).name) for p in df.path}

def test_folder_with_numbers_keeps_them(tmp_path):
    df = read_folder(toy_folder(tmp_path/'own', ('0012','7'), ('300',)))
    assert df.groupby('name').vid.first().to_dict()=={'0012':12, '7':7, '300':300}
    same = read_folder(toy_folder(tmp_path/'twins', ('07','7'), ('300',)))
    assert same.vid.nunique()==3 # 07 and 7 are two folders, so two vehicles

def test_folder_bad_input(tmp_path):
    toy_folder(tmp_path/'own'); (tmp_path/'own'/'gallery').rename(tmp_path/'own'/'test')
    with pytest.raises(FileNotFoundError, match='lacks gallery.*a folder for each vehicle'): read_folder(tmp_path/'own')
    for s in ('train','query','gallery'): (tmp_path/'flat'/s).mkdir(parents=True); picture(tmp_path/'flat'/s/'a.jpg')
    with pytest.raises(ValueError, match='No images.*a folder for each vehicle'): read_folder(tmp_path/'flat')

@pytest.mark.parametrize('name,cam', [('0002_c003_00084270_0.jpg',3), ('0002_c020_1_0.jpg',20), ('c7.jpg',7),
    ('taxi.jpg',-1), ('abc12_x.jpg',-1), ('pic_c.jpg',-1)])
def test_camera_of(name, cam): assert camera_of(name)==cam

def test_table_from_csv(tmp_path):
    for n in 'abcd': picture(tmp_path/'pics'/f'{n}.jpg')
    rows = ['path,vid,cam,split,time', 'pics/a.jpg,007,1,train,9', 'pics/b.jpg,12,1,train,8', 'pics/c.jpg,30,1,query,7',
        'pics/d.jpg,30,2,gallery,6']
    (tmp_path/'t.csv').write_text('\n'.join(rows)+'\n')
    df = check_items(read_table(tmp_path/'t.csv'))
    assert list(df.vid)==[7,12,30,30] and list(df.cam)==[1,1,1,2] and list(df.time)==[9,8,7,6] and df.vid.dtype==df.cam.dtype=='int64'
    frame = df.drop(columns='cam').assign(vid=['a','b','c','c'])
    again = read_table(frame)
    assert 'name' not in df and list(again.vid)==[0,1,2,2] and list(again.name)==['a','b','c','c'] and list(again.cam)==[-1]*4
    assert list(frame.vid)==['a','b','c','c'] and 'cam' not in frame # what was given is as it was
    assert list(read_table(read_veri(toy_veri(tmp_path/'V'))).columns)[:4]==['path','vid','cam','split']

@pytest.mark.parametrize('change,says', [
    (lambda df: df.drop(columns=['vid','split']), 'no column vid, split; its columns are path, cam'),
    (lambda df: df.assign(vid=[1,None,3]), r'1 rows have no vid: rows 1'),
    (lambda df: df.assign(cam=[1,None,3]), r'no cam: rows 1.*-1: unknown'),
    (lambda df: df.assign(cam=['left',1,2.5]), r'Cameras must be integers; 2 are not: left, 2.5'),
])
def test_table_bad_input(change, says):
    df = pd.DataFrame(dict(path=list('abc'), vid=[1,2,3], cam=[1,1,1], split=['train','query','gallery']))
    with pytest.raises(ValueError, match=says): read_table(change(df))

def test_table_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='not a file.*path, vid, split'): read_table(tmp_path/'t.csv')

# ---- checks -----------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def df(tmp_path):
    rows = [('a',1,1,'train'), ('b',1,2,'train'), ('c',2,1,'train'), ('d',5,1,'query'), ('e',5,2,'gallery'), ('f',6,1,'gallery')]
    for n,*_ in rows: picture(tmp_path/f'{n}.jpg')
    return pd.DataFrame([(str(tmp_path/f'{n}.jpg'), *o) for n,*o in rows], columns=['path','vid','cam','split'])

def test_a_sound_table_passes_unchanged(df):
    before = df.copy(); assert check_items(df) is df
    pd.testing.assert_frame_equal(df, before)

@pytest.mark.parametrize('change,error,says', [
    (lambda df: df[df.split!='train'], ValueError, 'no train rows'),
    (lambda df: df[df.split!='query'], ValueError, 'no query rows.*nothing to search for'),
    (lambda df: df[df.split!='gallery'], ValueError, 'no gallery rows'),
    (lambda df: df[:0], ValueError, 'no train rows'),
    (lambda df: df.replace('gallery', 'test'), ValueError, "split holds 'test'; it must be one of train, query, gallery"),
    (lambda df: pd.concat([df, df[1:3]]), ValueError, r'2 rows are doubled.*b.jpg, .*c.jpg'),
    (lambda df: df.assign(path=df.path.where(df.index!=4, df.path[0])), ValueError, '1 images carry two vehicle ids.*a.jpg'),
    (lambda df: df.assign(path=[p.replace('.jpg', '.png') if i>1 else p for i,p in enumerate(df.path)]), FileNotFoundError,
        r'4 of 6 images do not exist: .*c.png, .*d.png, .*e.png, …'),
    (lambda df: df.assign(vid=[1,1,2,2,2,6]), ValueError, r'1 vehicles are in train and also in query or gallery: 2\.'),
    (lambda df: df.assign(vid=[1,1,2,5,5,1]), ValueError, r'1 vehicles are in train and also in query or gallery: 1\.'),
    (lambda df: df.assign(cam=1), ValueError, r'1 of 1 queries have no match .*another camera.*d.jpg.*unmatched'),
    (lambda df: df.assign(vid=[1,1,2,5,7,6]), ValueError, '1 of 1 queries have no match'),
    (lambda df: df.assign(path=df.path.where(df.index!=4, df.path[3]), cam=-1), ValueError, 'find themselves'),
])
def test_checks(df, change, error, says):
    with pytest.raises(error, match=says): check_items(change(df))

def test_unknown_cameras_are_never_junk(df):
    assert len(check_items(df.assign(cam=-1)))==6

def test_a_vehicle_with_one_image_is_no_error(df):
    assert (df.vid==2).sum()==1 and check_items(df) is df

pairs = st.lists(st.tuples(st.integers(0,3), st.integers(-1,2)), max_size=8)
@given(pairs, pairs)
def test_unmatched_is_the_literal_rule(qs, gs):
    rows = [(f'{i}', v, c, s) for s,xs in (('query',qs),('gallery',gs)) for i,(v,c) in enumerate(xs)]
    df = pd.DataFrame(rows, columns=['path','vid','cam','split'])
    slow = [i for i,(v,c) in enumerate(qs) if not any(gv==v and not (gc==c and c>=0) for gv,gc in gs)]
    assert list(unmatched(df).index)==slow

def test_verify_images_lists_every_broken_file(df):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64,64,3), dtype=np.uint8)).save(df.path[1])
    whole = Path(df.path[1]).read_bytes(); Path(df.path[1]).write_bytes(whole[:len(whole)//2]) # opens, but cannot be decoded
    Image.open(df.path[1]).close()
    Path(df.path[4]).write_text('no picture')
    Path(df.path[5]).unlink()
    for n in (1,3):
        bad = verify_images(df, n_workers=n, progress=False)
        assert list(bad.index)==[1,4,5] and bad.error.str.len().gt(10).all() and list(bad.columns)==[*df.columns,'error']
    assert len(verify_images(df[:1], progress=False))==0

"Readers of each layout with its traps, the checks on a table, and what bad input says"
import os, warnings
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from PIL import Image
from vehicle_reid.datasets import (camera_of, check_items, count_differences, published, read_cityflow, read_folder, read_names, read_occluded_veri,
    read_table, read_vehicleid, read_veri, read_veriwild, read_vric, split_by_vehicle, unmatched, verify_images)

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
    with pytest.raises(FileNotFoundError, match='holds train, query but not all of train, query and gallery.*a folder for each vehicle'): read_folder(tmp_path/'own')
    for s in ('train','query','gallery'): (tmp_path/'flat'/s).mkdir(parents=True); picture(tmp_path/'flat'/s/'a.jpg')
    with pytest.raises(ValueError, match='No images.*each vehicle needs a folder'): read_folder(tmp_path/'flat')

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
    (lambda df: df.drop(columns=['vid','split']), 'no column vid; its columns are path, cam'),
    (lambda df: df.assign(vid=[1,None,3]), r'1 rows have no vid: rows 1'),
    (lambda df: df.assign(cam=[1,None,3]), r'no cam: rows 1.*-1: unknown'),
    (lambda df: df.assign(cam=['left',1,2.5]), r'Cameras must be integers, or all of them names; 2 are not: row 0: left, row 2: 2.5'),
])
def test_table_bad_input(change, says):
    df = pd.DataFrame(dict(path=list('abc'), vid=[1,2,3], cam=[1,1,1], split=['train','query','gallery']))
    with pytest.raises(ValueError, match=says): read_table(change(df))

def test_table_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='not a file.*path, vid and, if known, cam and split'): read_table(tmp_path/'t.csv')

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
        r'4 of 6 images do not exist: .*c.png, .*d.png, .*e.png, .*f.png\.'),
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

# ---- as strangers' machines write them ---------------------------------------------------------------------------------------------

def test_lists_with_marks_blank_lines_and_back_slashes(veri):
    want = read_veri(veri)
    for s in ('train','query','test'):
        f = veri/f'name_{s}.txt'
        f.write_bytes(b'\xef\xbb\xbf' + b'\r\n\r\n'.join(f.read_bytes().split()) + b'  \r\n')
    pd.testing.assert_frame_equal(read_veri(veri), want)

@pytest.mark.parametrize('line', ['/etc/0001_c001_00000001_0.jpg', '..\\0001_c001_00000001_0.jpg', 'a/../../0001_c001_00000001_0.jpg', 'C:\\0001_c001_00000001_0.jpg'])
def test_a_list_that_leads_out_of_its_folder(veri, line):
    (veri/'name_query.txt').write_text(f'0100_c001_00001000_0.jpg\n{line}\n')
    with pytest.raises(ValueError, match=r"1 lines of .*name_query.txt lead out of its folder: line 2"): read_veri(veri)

def test_ten_troubles_of_a_kind_and_their_number(veri):
    (veri/'name_train.txt').write_text('\n'.join(f'x{i}.jpg' for i in range(37)))
    with pytest.raises(ValueError) as e: read_veri(veri)
    assert '37 images' in str(e.value) and all(f'x{i}.jpg' in str(e.value) for i in range(10)) and 'x10.jpg' not in str(e.value)

BOMB = '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol">' + ''.join(f'<!ENTITY {c} "{f"&{b};"*10}">' for b,c in zip('abcdefgh','bcdefghi')) + ']><T><Items><Item imageName="&i;" vehicleID="0001"/></Items></T>'
@pytest.mark.parametrize('xml', [BOMB, '<!DOCTYPE x SYSTEM "file:///etc/passwd"><T><Items><Item vehicleID="1"/></Items></T>', '<!doctype x [<!entity e SYSTEM "file:///etc/hostname">]><T>&e;</T>'])
def test_xml_with_entities_is_not_read(veri, xml):
    (veri/'train_label.xml').write_text(xml)
    with pytest.raises(ValueError, match='train_label.xml declares a document type or entities'): read_veri(veri)

def test_xml_with_words_for_numbers(veri):
    (veri/'test_label.xml').write_text('<T><Items><Item imageName="a.jpg" vehicleID="one" colorID="2" typeID="3"/></Items></T>')
    with pytest.raises(ValueError, match='1 items of .*test_label.xml have a vehicleID, colorID or typeID that is no number: a.jpg'): read_veri(veri)

# ---- published counts ---------------------------------------------------------------------------------------------------------------

def test_a_copy_that_lacks_images_is_told_and_a_small_set_is_not(monkeypatch, tmp_path):
    monkeypatch.setitem(published, 'VeRi-776', dict(train=26, query=3, gallery=17))
    path = toy_veri(tmp_path/'VeRi') # 24, 3, 18
    with pytest.warns(UserWarning, match='train holds 24 images, 2 fewer than 26, gallery holds 18 images, 1 more than 17'): df = read_veri(path)
    assert count_differences(df, 'VeRi-776')==dict(train=(24,26), gallery=(18,17))
    monkeypatch.setitem(published, 'VeRi-776', dict(train=2600, query=3, gallery=17))
    with warnings.catch_warnings(): warnings.simplefilter('error'); read_veri(path)
    monkeypatch.setitem(published, 'VeRi-776', dict(train=24, query=3, gallery=(18,19)))
    with warnings.catch_warnings(): warnings.simplefilter('error'); read_veri(path)

# ---- VERI-Wild, VRIC, CityFlow ------------------------------------------------------------------------------------------------------

def toy_veriwild(path, header=True, suffix='', jpg=False):
    "VERI-Wild layout: vehicles 1-3 to train, 4-6 to test; a test list holds its queries as well"
    info,lists = [],dict(train_list=[], **{f'test_3000{suffix}': [], f'test_3000{suffix}_query': []})
    for v in range(1,7):
        for i in range(3):
            k = f'{v:05}/{100*v+i:06}'
            picture(path/'images'/f'{k}.jpg'); info.append(f'{k};{i+1};2018-03-0{i+1} 10:00:00;Audi A{v};SUV;{"white" if v%2 else "red"}')
            for n in (['train_list'] if v<4 else [f'test_3000{suffix}', *([f'test_3000{suffix}_query'] if i==0 else [])]): lists[n].append(k + ('.jpg' if jpg else ''))
    (path/'train_test_split').mkdir()
    for n,o in lists.items(): (path/'train_test_split'/f'{n}.txt').write_text('\n'.join(o)+'\n')
    (path/'train_test_split'/'vehicle_info.txt').write_text('\n'.join((['id/image;Camera ID;time;model;type;color'] if header else [])+info)+'\n')
    return path

@pytest.mark.parametrize('kw', [{}, dict(header=False), dict(suffix='_id'), dict(jpg=True)])
def test_veriwild(tmp_path, kw):
    df = check_items(read_veriwild(toy_veriwild(tmp_path/'W', **kw)))
    assert df.split.value_counts().to_dict()==dict(train=9, gallery=6, query=3)
    o = df[df['split']=='query'].iloc[0]
    assert (o.vid,o.cam,o.time,o.model,o.type,o.color)==(4,1,'2018-03-01 10:00:00','Audi A4','SUV','red') and not set(df.path[df.split=='query']) & set(df.path[df.split=='gallery'])

@pytest.mark.parametrize('spoil,error,says', [
    (lambda p: (p/'train_test_split'/'vehicle_info.txt').write_text('id/image;Camera ID\n00001/000100;x;t\n'), ValueError, r"1 lines of .*vehicle_info.txt are not .*line 2: 00001/000100;x;t"),
    (lambda p: (p/'train_test_split'/'vehicle_info.txt').write_text('00001/000100;1;t;m;t;c\n'), ValueError, '17 images of the lists are not in .*vehicle_info.txt: 00001/000101'),
    (lambda p: (p/'train_test_split'/'test_3000.txt').unlink(), FileNotFoundError, 'holds none of test_3000.txt, test_3000_id.txt'),
    (lambda p: (p/'train_test_split'/'train_list.txt').write_text('a\n00001/000100\nb/c/d\n'), ValueError, "2 lines of .*train_list.txt are not 'vehicle/image': a, b/c/d"),
])
def test_veriwild_bad_input(tmp_path, spoil, error, says):
    path = toy_veriwild(tmp_path/'W'); spoil(path)
    with pytest.raises(error, match=says): read_veriwild(path)

def toy_vric(path):
    for s,vs,n in (('train',range(1,4),3), ('probe',range(4,8),1), ('gallery',range(4,8),1)):
        lines = [f'{v:04}_{i} {s}.jpg {v} {i+1+(s=="gallery")}' for v in vs for i in range(n)] # a blank in the name
        for l in lines: picture(path/f'{s}_images'/l.rsplit(' ', 2)[0])
        (path/f'vric_{s}.txt').write_text('\n'.join(lines)+'\n')
    return path

def test_vric(tmp_path):
    df = check_items(read_vric(toy_vric(tmp_path/'VRIC')))
    assert df.split.value_counts().to_dict()==dict(train=9, query=4, gallery=4) and list(df.cam[df.split=='gallery'])==[2]*4
    (tmp_path/'VRIC'/'vric_probe.txt').write_text('a.jpg 1\n')
    with pytest.raises(ValueError, match="1 lines of .*vric_probe.txt are not 'name vehicle camera'.*line 1: a.jpg 1"): read_vric(tmp_path/'VRIC')

def toy_cityflow(path, n=8, cams=3):
    items = []
    for v in range(1, n+1):
        for c in range(cams):
            name = f'{len(items)+1:06}.jpg'; picture(path/'image_train'/name, (v*30%256, c*50, 0)); items.append(f'<Item imageName="{name}" vehicleID="{v:04}" cameraID="c{c+1:03}" />')
    (path/'train_label.xml').write_text(f'<?xml version="1.0" encoding="gb2312"?><TrainingImages><Items number="{len(items)}">{"".join(items)}</Items></TrainingImages>', encoding='gb2312')
    return path

def test_cityflow_sets_vehicles_aside(tmp_path):
    path = toy_cityflow(tmp_path/'C'); df = check_items(read_cityflow(path))
    held = set(df.vid[df.split!='train'])
    assert len(held)==2 and not held & set(df.vid[df.split=='train']) and (df.split=='query').sum()==6==(df.split=='gallery').sum()
    pd.testing.assert_frame_equal(df, read_cityflow(path)); assert set(read_cityflow(path, seed=1).vid[lambda v: v.index>=18])!=held
    (path/'train_label.xml').write_text('<T><Item imageName="../x.jpg" vehicleID="1" cameraID="c001"/><Item imageName="b.jpg" cameraID="c1"/></T>')
    with pytest.raises(ValueError, match='2 items of .*train_label.xml have no number as vehicleID or cameraID, or no plain file name: ../x.jpg, b.jpg'): read_cityflow(path)

# ---- own data -----------------------------------------------------------------------------------------------------------------------

@given(st.lists(st.tuples(st.integers(1,6), st.integers(-1,3)), min_size=1, max_size=40), st.floats(.05,.95), st.integers(0,99))
def test_a_split_of_ones_own(rows, test, seed):
    df = pd.DataFrame(rows, columns=['vid','cam']).assign(path=[f'{i}.jpg' for i in range(len(rows))], extra=range(len(rows)))
    can = [v for v,o in df.groupby('vid') if (o.cam.nunique()>1 if (o.cam>=0).all() else len(o)>1)]
    if df.vid.nunique()<2 or not can:
        with pytest.raises(ValueError, match='too few to set some aside'): split_by_vehicle(df, test, seed)
        return
    out = split_by_vehicle(df, test, seed)
    held = set(out.vid[out.split!='train'])
    assert set(out.path)==set(df.path) and held <= set(can) and not held & set(out.vid[out.split=='train']) and set(out.split)=={'train','query','gallery'}
    assert len(held)==min(len(can), max(1, round(test*df.vid.nunique())), df.vid.nunique()-1)
    assert len(unmatched(out))==0 and not out.duplicated(['path','split']).any() and (out.extra==[int(p[:-4]) for p in out.path]).all()
    blind = out[(out.split=='query') & (out.cam<0)]
    assert not set(blind.path) & set(out.path[out.split=='gallery'])

def test_folders_without_a_split(tmp_path):
    for v in ('bus','car','red van'):
        for i in range(4): picture(tmp_path/'own'/v/f'{i}_c{i%2}_x.jpg')
    df = check_items(read_folder(tmp_path/'own'))
    assert set(df.name)=={'bus','car','red van'} and df.vid[df.split!='train'].nunique()==1 and set(df.cam)=={0,1} and (df.split=='query').sum()==2

def test_names_by_a_pattern(tmp_path):
    for v in ('a','b','c'):
        for gate in ('north','süd'): picture(tmp_path/'all'/gate/f'{v}-1200.jpg')
    df = check_items(read_names(tmp_path/'all', r'(?P<cam>\w+)/(?P<vid>\w+)-(?P<time>\d+)'))
    assert set(df.camera)=={'north','süd'} and set(df.cam)=={0,1} and set(df.time)=={'1200'} and set(df.name)=={'a','b','c'}
    given = read_names(tmp_path/'all', r'(?P<split>north|süd)/(?P<vid>\w+)-')
    assert set(given.split)=={'north','süd'} and set(given.cam)=={-1}

@pytest.mark.parametrize('pattern,says', [('(', 'is no regular expression'), (r'(\w+)', r'no group \(\?P<vid>'), (r'(?P<vid>\d+)', r'2 of 3 images in .* do not fit the pattern .*: a.jpg, b.png')])
def test_names_that_do_not_fit(tmp_path, pattern, says):
    for n in ('a.jpg','b.png','3.jpg'): picture(tmp_path/n)
    with pytest.raises(ValueError, match=says): read_names(tmp_path, pattern)

def test_a_circle_of_links_and_strange_names(tmp_path):
    (tmp_path/'pics').mkdir()
    for n in ('1 a\nb.jpg','1_ü.JPG','2_x.jpeg','2_y.jpg'): Image.new('RGB', (8,8)).save(tmp_path/'pics'/n, 'JPEG')
    (tmp_path/'pics'/'loop').symlink_to(tmp_path/'pics'); (tmp_path/'pics'/'self').symlink_to('self')
    df = check_items(read_names(tmp_path/'pics', r'^(?P<vid>\d)'))
    assert len({os.path.basename(p) for p in df.path})==4
    (tmp_path/'own'/'1').mkdir(parents=True); (tmp_path/'own'/'loop').symlink_to(tmp_path/'own')
    for v in '12':
        for i in range(2): picture(tmp_path/'own'/v/f'{i}.jpg')
    assert len(check_items(read_folder(tmp_path/'own')))==4

def test_a_table_without_a_split_and_with_names_of_cameras(tmp_path):
    df = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(8)], vid=[1,1,2,2,3,3,4,4], cam=['b','a']*4, owner=list('stuvwxyz')))
    out = read_table(df)
    assert list(out.camera.map({'a': 0, 'b': 1}))==list(out.cam) and set(out.split)=={'train','query','gallery'}
    assert all(df.owner[int(p[0])]==o for p,o in zip(out.path, out.owner))

def test_parquet(tmp_path):
    df = pd.DataFrame(dict(path=['a.jpg'], vid=[1], split=['train']))
    try: import pyarrow
    except ImportError:
        (tmp_path/'t.parquet').write_bytes(b'PAR1')
        with pytest.raises(ImportError, match='t.parquet needs a library for Parquet: pip install pyarrow'): read_table(tmp_path/'t.parquet')
    else:
        df.to_parquet(tmp_path/'t.parquet'); assert read_table(tmp_path/'t.parquet').path[0]==str(tmp_path/'a.jpg')

@pytest.mark.parametrize('data', [b'', b'\xff\xfe\x00', b'path,vid\n"a', b'\x00'*50, b'a\n1,2,3\n4\n'])
def test_a_file_that_is_no_table(tmp_path, data):
    (tmp_path/'t.csv').write_bytes(data)
    with pytest.raises(ValueError, match='t.csv is not readable as a table|no column|no rows'): read_table(tmp_path/'t.csv')

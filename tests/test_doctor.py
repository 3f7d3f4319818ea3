"The doctor: every layout recognised, every trouble told, none of them its own end"
import os, shutil
from pathlib import Path
import pandas as pd, pytest
from PIL import Image
from hypothesis import HealthCheck, given, settings, strategies as st
from vehicle_reid import datasets as d
from vehicle_reid.cli import main
from vehicle_reid.doctor import copies, examine, guess_layout
from test_datasets import picture, toy_cityflow, toy_folder, toy_vehicleid, toy_veri, toy_veriwild, toy_vric

def toy_table(path):
    path.mkdir()
    for i in range(8): picture(path/f'{i}.jpg', (i*30,0,9))
    pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(8)], vid=[1,1,2,2,3,3,4,4])).to_csv(path/'t.csv', index=False)
    return path/'t.csv'

@pytest.mark.parametrize('layout,toy,protocol', [('veri',toy_veri,'cross-camera'), ('vehicleid',toy_vehicleid,'ten trials'), ('veriwild',toy_veriwild,'cross-camera'), ('vric',toy_vric,'cross-camera'),
    ('cityflow',toy_cityflow,'cross-camera'), ('table',toy_table,'the camera rule is off')])
def test_each_layout_is_recognised(tmp_path, layout, toy, protocol):
    path = toy(tmp_path/'set')
    r = examine(path, progress=False)
    assert r.layout==guess_layout(path)==layout and r.ok and protocol in repr(r) and 'can be trained on and evaluated.' in repr(r), repr(r)
    assert r.sizes.sum()==len(r.items) and r.counts.images.sum()==len(r.items)

@pytest.fixture
def veri(tmp_path): return toy_veri(tmp_path/'VeRi')

def test_published_counts(veri, monkeypatch):
    assert 'not the published VeRi-776: train 24 images instead of 37,778' in repr(examine(veri, progress=False))
    monkeypatch.setitem(d.published, 'VeRi-776', dict(train=24, query=3, gallery=18))
    assert 'the counts are those published for VeRi-776' in repr(examine(veri, progress=False))

def test_troubles_are_told_together(veri):
    train,test = sorted((veri/'image_train').iterdir()),sorted((veri/'image_test').iterdir())
    train[0].write_bytes(b'no image'); train[1].write_bytes(train[1].read_bytes()[:200])
    shutil.copy(train[2], test[-1])
    r = examine(veri, progress=False); text = repr(r)
    assert not r.ok and '2 files cannot be read: ' in text and all(str(p) in text for p in train[:2])
    assert '1 of them are in train and in the test' in text and '1 of them carry two vehicle ids' in text and 'cannot be trained on' in text

def test_a_query_that_the_gallery_holds_is_no_copy(veri):
    r = examine(veri, progress=False)
    name = r.looked.path.map(os.path.basename)
    both = set(name[r.looked.split=='query']) & set(name[r.looked.split=='gallery'])
    assert both and not set(copies(r.looked).path.map(os.path.basename)[lambda o: o.index.isin(r.looked.index[r.looked.split=='query'])]) & both

def test_few_images_and_one_camera(tmp_path):
    path = toy_table(tmp_path/'t')
    pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(8)], vid=[1,2,2,3,3,3,4,4], cam=[1,1,1,1,2,1,1,2], split=['train']*3+['query','gallery','gallery','train','train'])).to_csv(path, index=False)
    text = repr(examine(path, progress=False))
    assert '1 training vehicles have a single image: 1' in text and '1 training vehicles were seen by one camera alone: 2' in text

@pytest.mark.parametrize('spoil,says', [(lambda p: (p/'name_train.txt').write_text('x\n'), '1 images in .*name_train.txt are not named'), (lambda p: shutil.rmtree(p/'image_test'), 'lacks image_test'),
    (lambda p: (p/'train_label.xml').write_text('<!DOCTYPE a>'), 'declares a document type'), (lambda p: [f.unlink() for f in (p/'image_train').iterdir()], 'are not in')])
def test_what_the_reader_refuses_is_reported_and_files_are_read_all_the_same(veri, spoil, says):
    import re
    spoil(veri); r = examine(veri, 'veri', progress=False)
    assert not r.ok and r.items is None and re.search(says, repr(r)) and len(r.looked)

def test_the_command(veri, capsys):
    assert main(['doctor', str(veri)])==0 and 'cross-camera' in capsys.readouterr().out
    next((veri/'image_train').iterdir()).write_bytes(b'')
    assert main(['doctor', str(veri)])==1 and '1 files cannot be read' in capsys.readouterr().out
    assert main(['doctor', str(veri/'nowhere')])==1 and 'neither a folder nor a file' in capsys.readouterr().err
    assert main(['doctor', str(veri), '--layout', 'names'])==1 and '--pattern' in capsys.readouterr().err

def test_the_command_with_a_pattern(tmp_path, capsys):
    for v in 'abc':
        for c in '12': picture(tmp_path/f'{v}_{c}.jpg', (ord(v), int(c)*90, 0))
    assert main(['doctor', str(tmp_path), '--pattern', r'(?P<vid>[a-z])_(?P<cam>\d)'])==0
    assert 'read as names' in capsys.readouterr().out

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(['name_train.txt','name_query.txt','train_label.xml','image_train/0001_c001_00000001_0.jpg','image_query/0100_c001_00001000_0.jpg','vric_train.txt','train_test_split/train_list.txt']), st.binary(max_size=60), min_size=1))
def test_nothing_in_a_data_set_ends_the_doctor(tmp_path, files):
    path = tmp_path/'any'; shutil.rmtree(path, ignore_errors=True); shutil.copytree(_plain(tmp_path), path)
    for n,data in files.items(): (path/n).parent.mkdir(parents=True, exist_ok=True); (path/n).write_bytes(data)
    assert str(path) in repr(examine(path, progress=False, n_workers=1))

def _plain(tmp_path): return tmp_path/'plain' if (tmp_path/'plain').exists() else toy_veri(tmp_path/'plain', ids=(1,100), n_test=1, cams=(1,2), images=1)

"Whatever bytes a list, label file or table holds: a table that is sound, or one error that names the file. `FUZZ=100000 pytest tests/test_fuzz_lists.py` for a long run"
import os, shutil, warnings
from pathlib import Path
import pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from vehicle_reid.datasets import read_cityflow, read_names, read_table, read_vehicleid, read_veri, read_veriwild, read_vric
from test_datasets import picture, toy_cityflow, toy_vehicleid, toy_veri, toy_veriwild, toy_vric

N = int(os.environ.get('FUZZ', 300))
fuzz = settings(max_examples=N, deadline=None, suppress_health_check=list(HealthCheck))
SETS = dict(veri=(toy_veri, read_veri, ('name_train.txt','name_query.txt','train_label.xml','test_label.xml')), vehicleid=(toy_vehicleid, read_vehicleid, ('train_test_split/train_list.txt','train_test_split/test_list_800.txt')),
    veriwild=(toy_veriwild, read_veriwild, ('train_test_split/vehicle_info.txt','train_test_split/train_list.txt','train_test_split/test_3000_query.txt')), vric=(toy_vric, read_vric, ('vric_train.txt','vric_gallery.txt')),
    cityflow=(toy_cityflow, read_cityflow, ('train_label.xml',)))

def spoilt(old):
    "Bytes near `old`: cut, doubled, with pieces put in; or any bytes at all"
    pieces = st.sampled_from([b'\n', b'\r\n', b'\0', b'\xff\xfe', b'\xef\xbb\xbf', b';', b' ', b'..', b'/', b'\\', b'-1', b'1e9', b'9'*30, b'<', b'>', b'"', b'&amp;', b'<!ENTITY', b'nan', '車²'.encode(), b'c001', old[:40]]) | st.binary(max_size=8)
    def put(args):
        data = old
        for at,cut,new in args: i = int(at*len(data)); data = data[:i] + new + data[i+cut:]
        return data
    return st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), pieces), min_size=1, max_size=4).map(put) | st.binary(max_size=200)

@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    d = tmp_path_factory.mktemp('sets')
    return {n: toy(d/n) for n,(toy,*_) in SETS.items()}

@pytest.mark.parametrize('name,file', [(n,f) for n,(_,_,files) in SETS.items() for f in files])
def test_readers(sets, name, file):
    path,read = sets[name],SETS[name][1]
    old = (path/file).read_bytes()
    @fuzz
    @given(spoilt(old))
    def run(data):
        (path/file).write_bytes(data)
        try: df = read(path)
        except (ValueError, FileNotFoundError) as e: assert any(o in str(e) for o in (path.name, 'vehicles')) and len(str(e))<5000, e
        else: assert len(df) and {'path','vid','cam','split'} <= set(df.columns) and pd.api.types.is_integer_dtype(df.vid) and pd.api.types.is_integer_dtype(df.cam) and all(os.path.realpath(p).startswith(str(path)) for p in df.path)
    try: run()
    finally: (path/file).write_bytes(old)

def test_tables(tmp_path):
    file,old = tmp_path/'t.csv',b'path,vid,cam,split,time\na.jpg,1,1,train,9\nb.jpg,red van,2,query,8\n"c, d.jpg",3,-1,gallery,\n'
    @fuzz
    @given(spoilt(old))
    def run(data):
        file.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try: df = read_table(file)
            except (ValueError, FileNotFoundError) as e: assert str(e)[0].isupper() or str(file) in str(e) or str(e)[0].isdigit(), e
            else: assert len(df) and pd.api.types.is_integer_dtype(df.vid) and pd.api.types.is_integer_dtype(df.cam) and all(isinstance(p, str) for p in df.path)
    run()

def test_patterns_and_names(tmp_path):
    letters = st.text(st.characters(blacklist_characters='/\0', blacklist_categories=['Cs']), min_size=1, max_size=12).filter(lambda o: o not in ('.','..') and len(o.encode())<200)
    @settings(fuzz, max_examples=max(N//3, 50))
    @given(st.sets(letters, min_size=1, max_size=4), st.sampled_from([r'(?P<vid>.)', r'(?P<vid>\w+)(?P<cam>\d)?', r'^(?P<vid>[^_]+)_(?P<cam>.*)\.', '(?P<vid>', '(?P<x>.)', r'(?P<vid>)']) | st.text(max_size=10))
    def run(names, pattern):
        d = tmp_path/'n'; shutil.rmtree(d, ignore_errors=True); d.mkdir()
        for n in names: (d/f'{n}.jpg').write_bytes(b'')
        try: df = read_names(d, pattern)
        except (ValueError, FileNotFoundError) as e: assert len(str(e))<5000
        else: assert set(map(os.path.basename, df.path))=={f'{n}.jpg' for n in names}
    run()

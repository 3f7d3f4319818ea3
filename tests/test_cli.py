"The command line from outside: help, one-line errors, exit codes, a folder that remembers, and a demo of the smallest size"
import json, re, subprocess, sys
from inspect import signature
from pathlib import Path
import pytest
from fastcore.docments import docments
from vehicle_reid import cli
from vehicle_reid.cli import Run, main, table

COMMANDS = [cli.demo, cli.train, cli.evaluate, cli.tables, cli.search]
SMALL = '--n-ids 12 --n-test 4 --n-cams 3 --size 64 --arch resnet10t --panet-epochs 1 --pmnet-epochs 1 --p 2 --k 4'.split()

def one_line_error(capfd, *argv):
    "The error line of a command that fails as it should"
    assert main([str(o) for o in argv])==1
    err = capfd.readouterr().err.strip().splitlines()
    assert len(err)==1 and err[0].startswith('vehicle-reid: '), err
    return err[0]

# --- help
@pytest.mark.parametrize('func', COMMANDS, ids=lambda f: f.__name__)
def test_help_tells_every_argument_and_default(func, capsys):
    with pytest.raises(SystemExit) as e: main([func.__name__, '--help'])
    assert e.value.code==0
    said = ' '.join(capsys.readouterr().out.split())
    assert func.__doc__ in said and '--debug' in said
    for n,o in signature(func).parameters.items():
        assert docments(func)[n], f'{func.__name__}({n}) has no comment'
        assert (n if o.default is o.empty and o.kind is not o.KEYWORD_ONLY else '--'+n.replace('_', '-')) in said
        if o.default not in (o.empty, False, '', []): assert f'(default: {o.default!r})' in said

def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as e: main(['--help'])
    said = ' '.join(capsys.readouterr().out.split())
    assert e.value.code==0
    for f in COMMANDS: assert f.__name__ in said and f.__doc__ in said

def test_help_does_not_wait_for_torch():
    code = "import sys, vehicle_reid.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode==0

@pytest.mark.parametrize('argv', [[], ['fly'], ['demo', '--n-ids', 'many'], ['evaluate'], ['train'], ['train', '--data', 'x', '--layout', 'zip'], ['search', 'm', 'q.jpg'], ['search', 'm', '--gallery', 'g']])
def test_a_wrong_usage_is_code_2(argv, capsys):
    with pytest.raises(SystemExit) as e: main(argv)
    assert e.value.code==2
    assert 'usage: vehicle-reid' in capsys.readouterr().err

# --- errors
def test_a_missing_model_is_named(tmp_path, capfd):
    for argv in (['evaluate', tmp_path/'none', '--data', tmp_path], ['search', tmp_path/'none', '--gallery', tmp_path, 'q.jpg']):
        err = one_line_error(capfd, *argv)
        assert str(tmp_path/'none') in err and 'reid.json' in err

@pytest.mark.parametrize('layout', ['veri', 'folder', 'table'])
def test_missing_data_is_named_before_work_starts(layout, tmp_path, capfd):
    err = one_line_error(capfd, 'train', '--data', tmp_path/'nothing', '--layout', layout, '--out', tmp_path/'out', '--weights', 'none', '--arch', 'resnet10t')
    assert str(tmp_path/'nothing') in err
    assert not (tmp_path/'out').exists()

def test_debug_gives_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError): main(['evaluate', str(tmp_path), '--data', str(tmp_path), '--debug'])

def test_exit_code_reaches_the_shell(tmp_path):
    code = 'import sys; from vehicle_reid.cli import main; sys.exit(main(sys.argv[1:]))'
    res = subprocess.run([sys.executable, '-c', code, 'evaluate', str(tmp_path/'none'), '--data', 'x'], capture_output=True, text=True)
    assert res.returncode==1 and len(res.stderr.strip().splitlines())==1 and 'Traceback' not in res.stderr

# --- the folder
def test_run_keeps_results_and_adds_up_seconds(tmp_path):
    calls = []
    def work():
        calls.append(1)
        return {'mAP': .25}
    for _ in range(2): assert Run(tmp_path/'r', seed=3).result('row', work)=={'mAP': .25}
    assert len(calls)==1
    run = Run(tmp_path/'r', seed=3)
    before = run.state['seconds'].get('row')
    with pytest.raises(KeyboardInterrupt):
        with run.stage('train'): raise KeyboardInterrupt
    kept = json.loads((tmp_path/'r/metrics.json').read_text())
    assert kept['seconds']['row']==before and 'train' in kept['seconds'] and kept['results']=={'row': {'mAP': .25}}
    assert not kept['finished']

def test_run_refuses_other_arguments_and_strange_folders(tmp_path):
    Run(tmp_path/'r', seed=3)
    old = (tmp_path/'r/metrics.json').read_bytes()
    with pytest.raises(ValueError, match=r'seed=3 \(now 4\)'): Run(tmp_path/'r', seed=4)
    assert (tmp_path/'r/metrics.json').read_bytes()==old
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/thesis.txt').write_text('x')
    with pytest.raises(ValueError, match='nothing was written'): Run(tmp_path/'mine', seed=3)
    with pytest.raises(ValueError, match='nothing was written'): Run(tmp_path/'mine/thesis.txt', seed=3)
    assert [p.name for p in (tmp_path/'mine').iterdir()]==['thesis.txt']

def test_a_result_that_fails_is_not_kept(tmp_path):
    run = Run(tmp_path/'r')
    with pytest.raises(ZeroDivisionError): run.result('row', lambda: 1/0)
    assert Run(tmp_path/'r').state['results']=={}

def test_write_json_leaves_the_old_file_when_data_cannot_be_written(tmp_path):
    f = tmp_path/'a.json'
    cli.write_json(f, {'a': 1})
    with pytest.raises(TypeError): cli.write_json(f, {'a': object()})
    assert json.loads(f.read_text())=={'a': 1}

def test_table_is_aligned_and_in_percent():
    t = table({'a': {'mAP': .5, 'CMC@1': 1.}, 'longer': {'mAP': .0312}}).splitlines()
    assert t[1].split()==['a', '50.0', '100.0'] and t[2].split()==['longer', '3.1']
    assert 'CMC@5' not in t[0] and len({len(o) for o in t})==1

# --- end to end
@pytest.fixture(scope='module')
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')/'out'
    assert main(['demo', '--out', str(out), *SMALL])==0
    return out

def test_demo_leaves_what_it_promises(done):
    for o in ('metrics.json', 'training.csv', 'rankings.png', 'parts.png', 'attention.png', 'curves.png', 'model/reid.json'):
        assert (done/o).stat().st_size>0, o
    m = json.loads((done/'metrics.json').read_text())
    assert m['finished'] and m['arguments']['seed']==0 and m['arguments']['n_ids']==12
    assert list(m['results'])==['mean colour', 'untrained PMNet', 'PMNet only', 'PANet + PMNet', 'PMNet + re-ranking']
    for row in m['results'].values(): assert all(0<=v<=1 for v in row.values()) and {'mAP', 'CMC@1', 'CMC@5'} <= row.keys()
    assert set(m['results']) | {'render', 'train', 'pictures'} == set(m['seconds'])
    assert m['versions']['torch'] and m['versions']['vehicle_reid']
    assert not list(done.glob('**/*.pkl')) and not list(done.glob('*.part'))

def test_demo_given_again_only_reports(done, capsys):
    before = json.loads((done/'metrics.json').read_text())['results']
    weights = (done/'model/pmnet/model.safetensors').stat().st_mtime_ns
    assert main(['demo', '--out', str(done), *SMALL])==0
    said = capsys.readouterr().out
    assert str(done.resolve()) in said.strip().splitlines()[-1] and '--- PMNet only' not in said
    assert json.loads((done/'metrics.json').read_text())['results']==before
    assert (done/'model/pmnet/model.safetensors').stat().st_mtime_ns==weights

def test_demo_with_other_arguments_touches_nothing(done, capfd):
    old = (done/'metrics.json').read_bytes()
    capfd.readouterr()
    assert 'seed=0 (now 1)' in one_line_error(capfd, 'demo', '--out', done, *SMALL, '--seed', '1')
    assert (done/'metrics.json').read_bytes()==old

def test_evaluate_gives_the_demos_numbers(done, tmp_path, capsys):
    want = json.loads((done/'metrics.json').read_text())['results']
    for flags,row in (([], 'PMNet only'), (['--teachers'], 'PANet + PMNet'), (['--rerank'], 'PMNet + re-ranking')):
        assert main(['evaluate', str(done/'model'), '--data', str(done/'data'), '--save', str(tmp_path/'m.json'), *flags])==0
        got = json.loads((tmp_path/'m.json').read_text())['results']
        assert got==pytest.approx(want[row], abs=1e-4), row

def test_search_finds_the_query_itself_first(done, tmp_path, capsys):
    folder = done/'data/image_test'
    q = sorted(folder.glob('*.jpg'))[3]
    capsys.readouterr()
    assert main(['search', str(done/'model'), '--gallery', str(folder), str(q), '--k', '5', '--save', str(tmp_path/'s.csv')])==0
    rows = [o for o in capsys.readouterr().out.splitlines() if re.search(r'\.jpg', o)]
    assert any(q.name in o for o in rows)
    import pandas as pd
    t = pd.read_csv(tmp_path/'s.csv')
    assert len(t)==5 and Path(t.path[0]).name==q.name and t.distance.is_monotonic_increasing
    from vehicle_reid.all import ReIDDataLoaders, ReIDLearner
    learn = ReIDLearner.from_pretrained(done/'model', ReIDDataLoaders.from_veri(done/'data', size=64, p=2, k=4))
    want = learn.gallery(sorted(map(str, folder.glob('*.jpg')))).search(str(q), k=5) # the same by way of the data set
    assert list(t.path)==list(want.path) and list(t.distance)==pytest.approx(list(want.distance), abs=1e-4)

def test_search_without_images_says_so(done, tmp_path, capfd):
    capfd.readouterr()
    assert str(tmp_path) in one_line_error(capfd, 'search', done/'model', '--gallery', tmp_path, 'q.jpg')
    assert 'nowhere.jpg' in one_line_error(capfd, 'search', done/'model', '--gallery', done/'data/image_test', tmp_path/'nowhere.jpg')

"The site, built as `make docs` builds it, and read: every link, every equation, in a browser where there is one"
import ast, json, os, re, shutil, subprocess, sys, threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'nbs/_web'))
import pages

def build(root, out):
    "The pages of `root` as HTML in `out`; a warning is an error"
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([sys.executable, '-W', 'ignore', root/'nbs/_web/pages.py'], check=True, env=env)
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-b', 'html', '-c', root/'nbs/_web', '-d', out.with_name(out.name+'-trees'), root/'_build/pages', out],
        capture_output=True, text=True, env=env)
    assert not done.returncode, done.stderr[-3000:]

def sources(folder, root=ROOT):
    "A copy of what the site is made of"
    shutil.copytree(root/'nbs', folder/'nbs', ignore=shutil.ignore_patterns('models','data','__pycache__'))
    for o in ('settings.ini','pyproject.toml',*pages.EXTRA): shutil.copy(root/o, folder/o)
    return folder

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    d = tmp_path_factory.mktemp('site')
    build(sources(d), d/'html')
    return d/'html'

class Page(HTMLParser):
    "What a page links to, loads, and can be linked at"
    def __init__(self, path):
        super().__init__()
        self.ids,self.links,self.loads = set(),[],[]
        self.feed(path.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if 'id' in a: self.ids.add(a['id'])
        if tag=='a' and a.get('href'): self.links.append(a['href'])
        loads = a.get('src') or (a.get('href') if tag=='link' and a.get('rel') not in ('canonical',) else None)
        if loads: self.loads.append(loads)

@pytest.fixture(scope='module')
def read(site): return {p.relative_to(site).as_posix(): Page(p) for p in site.rglob('*.html')}

def test_every_notebook_is_a_page_and_the_side_bar_leads_to_it(site, read):
    want = {p.relative_to(ROOT/'nbs').with_suffix('.html').as_posix() for p in pages.notebooks(ROOT)} | {'paper.html','api.html','CHANGELOG.html'}
    assert want <= set(read)
    assert want-{'index.html'} <= {o.split('#')[0] for o in read['index.html'].links}

def test_no_internal_link_is_broken(site, read):
    broken = []
    for name,page in read.items():
        for link in page.links:
            u = urlsplit(link)
            if u.scheme or u.netloc: continue
            to = name if not u.path else os.path.normpath((Path(name).parent/unquote(u.path)).as_posix())
            if not (site/to).is_file(): broken.append((name, link))
            elif u.fragment and to in read and unquote(u.fragment) not in read[to].ids: broken.append((name, link))
    assert not broken, broken[:10]

def test_nothing_is_loaded_from_elsewhere(read):
    far = [(n,o) for n,p in read.items() for o in p.loads if re.match(r'(https?:)?//', o)]
    assert not far, far[:10]

def test_every_public_name_in_backticks_is_a_link(site):
    page = (site/'50_learner.html').read_text(encoding='utf-8')
    for n in ('reid_learner','PartMasks','ReIDLearner.fit_two_stage'): assert re.search(rf'<a [^>]*href="[^"]*#api-{n.lower().replace("_", "-").replace(".", "-")}"', page), n

@pytest.mark.parametrize('page,names', [('11_panet', ['PANet.part_masks']), ('67_pytorch', ['PMNet.embed','PANet.part_boxes']), ('51_gallery', ['Gallery']), ('reference/parts', ['Parts','PartMasks']),
    ('CHANGELOG', ['PartMasks']), ('api', ['Parts'])])
def test_names_are_links_on_pages_of_all_kinds(read, page, names):
    for n in names: assert any(o.endswith('#api-'+n.lower().replace('_', '-').replace('.', '-')) for o in read[f'{page}.html'].links), n

@pytest.mark.parametrize('page,to', [('02_datasets','api-train'), ('02_datasets','api-reidlearner-gallery'), ('03_data','api-export'), ('03_data','api-evaluate'), ('03_data','tabular.core.html#encodes'),
    ('23_export','vision.augment.html#resize'), ('50_learner','api-gallery-save'), ('67_pytorch','data.load.html#dataloader')])
def test_ordinary_words_are_no_links(read, page, to): assert not any(o.endswith(to) for o in read[f'{page}.html'].links)

def test_two_modules_may_share_a_name(site, read):
    both = [o for o in pages.symbols(ROOT) if o.name=='search']
    assert {o.module for o in both}=={'words','cli'} and len({o.anchor for o in both})==2
    for o in both:
        assert o.anchor in read[f'{o.page}.html'].ids and 'search' in read[f'reference/{o.module}.html'].ids
    assert len({o.anchor for o in pages.symbols(ROOT)})==len(pages.symbols(ROOT))

def test_arguments_stand_in_tables(site):
    page = (site/'reference/learner.html').read_text(encoding='utf-8')
    assert 'fixed weights of the ID losses' in page and '<td' in page

def test_signatures_are_what_one_types(site):
    "Fields of tuples, stars, short floats, no machinery of fastai"
    page = {p.stem: re.sub(r'<[^>]+>', '', p.read_text(encoding='utf-8')) for p in (site/'reference').glob('*.html')}
    assert 'Parts(boxes, masks, foreground)' in page['parts'] and 'FixedWeighting(*weights)' in page['hul']
    assert not [m for m,o in page.items() if re.search(r'\(args, kwargs\)|after_create|object at 0x|AMPMode\.FP16:|\d\.\d{6}', o)]
    assert not [m for m,o in page.items() for n in ('kwargs','args') if re.search(rf'(?<![\w*`.]){n}(,|\)$)', o, re.M)]

def test_every_public_name_says_what_it_is():
    assert not {o.name for o in pages.symbols(ROOT) if not o.doc}

def test_nothing_of_the_paper_is_without_its_code():
    found = pages.paper_map(ROOT, pages.symbols(ROOT))
    assert len(found)==8+1+9+7
    assert not [o for o,(names,told) in found.items() if not names], 'no public name says that it is this'
    assert not [o for o,(names,told) in found.items() if not told], 'no page tells of this'

def test_a_name_stands_for_an_item_only_if_its_own_source_says_so():
    "Not if a neighbour in the same cell does"
    found = pages.paper_map(ROOT, pages.symbols(ROOT))
    assert not {'ReIDLearner.show_distances','ReIDLearner.show_cmc'} & {o.name for o in found['Fig.','6'][0]}
    assert sorted(pages.equations(ROOT))==[str(i) for i in range(1, 9)]

def test_the_side_bar_is_the_order_of_reading(site):
    "The first page leads to the first tutorial, and so on to the last page under the hood"
    order = ['index', *(p.stem for p in pages.reading_order(pages.notebooks(ROOT)))]
    assert set(order)=={p.stem for p in pages.notebooks(ROOT)} and order[1]=='60_first' and order[-1]=='08_components'
    for a,b in zip(order, order[1:]):
        following = re.search(r'<a class="next-page" href="([^"]+)"', (site/f'{a}.html').read_text(encoding='utf-8'))
        assert following[1]==f'{b}.html', a

@pytest.mark.parametrize('said,want', [('(eq. 1, 2)', {('Eq.','1'),('Eq.','2')}), ('eq. 5-7', {('Eq.','5'),('Eq.','6'),('Eq.','7')}), ('Tables III and IV', {('Table','III'),('Table','IV')}),
    ('Tables I to III', {('Table','I'),('Table','II'),('Table','III')}), ('(Fig. 5a)', {('Fig.','5')}), (r'$$x \tag{4}$$', {('Eq.','4')}), ('Exp-6', {('Table','III')}), ('a table, eq. 12, Table of', set()),
    ('Algorithm 1, lines 2-5', {('Algorithm','1')})])
def test_what_a_text_says_of_the_paper(said, want): assert pages.mentions(said)==want

def test_the_same_sources_give_the_same_bytes(site, tmp_path):
    build(sources(tmp_path, site.parent), tmp_path/'html')
    a,b = ({p.relative_to(d).as_posix(): p.read_bytes() for p in d.rglob('*') if p.is_file() and p.name!='.buildinfo'} for d in (site, tmp_path/'html'))
    assert a.keys()==b.keys() and not [n for n in a if a[n]!=b[n]]

def test_docs_is_the_site_of_these_sources():
    docs = ROOT/'docs'
    assert (docs/'built_from.txt').read_text()==pages.fingerprint(ROOT), 'docs/ is older than its sources: make docs'
    assert not {p.stem for p in pages.notebooks(ROOT)}-{p.stem for p in docs.glob('*.html')} and (docs/'.nojekyll').exists()

def test_one_changed_letter_is_noticed(tmp_path):
    (tmp_path/'vehicle_reid').mkdir()
    sources(tmp_path)
    was = pages.fingerprint(tmp_path)
    with open(tmp_path/'CHANGELOG.md', 'a') as f: f.write('.')
    assert was!=pages.fingerprint(tmp_path)

def test_llms_txt_and_docstrings_teach(site):
    text = (site/'llms.txt').read_text(encoding='utf-8')
    for nb in pages.notebooks(ROOT):
        if not (mod := pages.module_of(nb)): continue
        assert f'`vehicle_reid.{mod}`' in text, f'llms.txt lacks {mod}: export some prose of {nb.name}'
        doc = ast.get_docstring(ast.parse((ROOT/f'vehicle_reid/{mod}.py').read_text(encoding='utf-8')))
        assert len(doc.split())>30, f'{mod} says only {doc!r}'
    assert 'reid_learner(' in text and 'fit_two_stage' in text

# ---- what notebooks hold -----------------------------------------------------------------------------------------------------
def raw_cells():
    for p in pages.notebooks(ROOT):
        for c in json.loads(p.read_text(encoding='utf-8'))['cells']: yield p.stem, c['cell_type'], pages.text(c['source']), c.get('outputs', [])

def test_no_backslash_of_an_equation_is_doubled():
    "`\\\\wedge` sets the letters w, e, d, g, e; a line break before a letter belongs in an aligned environment"
    bad = []
    for name,kind,src,_ in raw_cells():
        if kind!='markdown': continue
        for eq in re.findall(r'(?<![\\$])\$\$?(?!\$)(.+?)\$', src, re.S):
            if re.search(r'\\\\[A-Za-z]', re.sub(r'\\begin\{(\w+\*?)\}.*?\\end\{\1\}', '', eq, flags=re.S)): bad.append((name, eq[:60]))
    assert not bad, bad

def test_no_saved_output_tells_of_a_warning_or_of_a_machine():
    "Warnings, tracebacks, folders of whoever ran it, addresses in memory"
    bad = []
    for name,_,src,outs in raw_cells():
        for o in outs:
            said = pages.text(o.get('text', ''))+' '.join(pages.text(v) for k,v in o.get('data', {}).items() if k.startswith('text/'))
            m = o['output_type']=='error' or re.search(r'Warning:|Traceback \(most|\bat 0x[0-9a-f]|(?<![\w./])/(work|home|root|Users|usr|tmp)/', said)
            if m: bad.append((name, src[:60], 'an error' if m is True else m[0]))
    assert not bad, bad

_shows = re.compile(r'print|display|show|plot|draw|imshow')

def test_what_a_tutorial_shows_is_there():
    "A cell that ends in a print or a picture has kept it, unless it is only to be read"
    bad = []
    for p in pages.notebooks(ROOT):
        if not re.match('6[0-9]_', p.name): continue
        for kind,d,src,outs in pages.cells(p):
            if kind!='code' or outs or d.get('eval')=='false' or d.get('output')=='false': continue
            last = ast.parse(re.sub(r'^[%!].*$', 'pass', src, flags=re.M)).body[-1]
            if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and _shows.search(ast.unparse(last.value.func)): bad.append((p.stem, src.splitlines()[-1][:80]))
    assert not bad, bad

# ---- in a browser ------------------------------------------------------------------------------------------------------------
CHROME,DRIVER = (next(filter(None, map(shutil.which, o)), None) for o in (('chromium','chromium-browser','google-chrome'), ('chromedriver',)))
in_browser = pytest.mark.skipif(not (CHROME and DRIVER), reason='no Chromium with chromedriver: apt-get install chromium chromium-driver')

class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture(scope='module')
def browser(site):
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService
    opts = ChromeOptions()
    opts.binary_location = CHROME
    for o in ('--headless','--no-sandbox','--disable-gpu','--disable-quic','--no-first-run','--disable-background-networking','--disable-component-update','--disable-sync'): opts.add_argument(o)
    opts.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Chrome(options=opts, service=ChromeService(DRIVER)) as b:
        b.site = f'http://127.0.0.1:{server.server_port}'
        yield b
    server.shutdown()

def wait_for(browser, script, what):
    from selenium.webdriver.support.ui import WebDriverWait
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(f'return {script}'), what)

def narrow(browser, width):
    "As wide as asked, which a headless window is not below 500 pixels"
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=900, deviceScaleFactor=1, mobile=width<600))

@in_browser
@pytest.mark.parametrize('width', [400,1400])
def test_every_page_opens_without_an_error_and_fits(browser, site, width):
    "Each page once, as narrow as a phone and as wide as a desk: wide things scroll in their own boxes"
    bad = {}
    browser.get_log('browser')
    narrow(browser, width)
    for page in sorted(p.relative_to(site).as_posix() for p in site.rglob('*.html') if p.parent.name!='_static'):
        browser.get(f'{browser.site}/{page}')
        wait_for(browser, 'document.readyState=="complete"', f'{page} is not loaded')
        wide,sizes,lines = browser.execute_script('const p = [...document.querySelectorAll("article p")]; return [document.documentElement.scrollWidth, '
            'p.map(o => parseFloat(getComputedStyle(o).fontSize)), p.map(o => o.getBoundingClientRect().width)]')
        errors = [o['message'] for o in browser.get_log('browser') if o['level'] in ('SEVERE','WARNING') and 'favicon' not in o['message']]
        if wide>width or errors or (sizes and (sizes[0]<15 or max(lines)>900)): bad[page] = wide,errors[:2],sizes[:1],max(lines, default=0)
    assert not bad

@in_browser
def test_pictures_stay_readable_on_a_phone_and_code_uses_a_wide_window(browser):
    narrow(browser, 400)
    browser.get(f'{browser.site}/42_show.html')
    wait_for(browser, '[...document.querySelectorAll(".cell_output img")].every(o => o.complete || o.loading=="lazy")', 'no pictures')
    shrunk = browser.execute_script('return [...document.querySelectorAll(".cell_output img")].filter(o => o.naturalWidth && o.width<Math.min(o.naturalWidth, 640)-1).length')
    assert not shrunk
    narrow(browser, 1400)
    code,box = browser.execute_script('return [document.querySelector(".cell_input").getBoundingClientRect().width, Math.max(...[...document.querySelectorAll(".cell_input pre")].map(o => o.scrollWidth-o.clientWidth))]')
    assert code>=800 and box<=0, 'code is narrow or its lines are cut'

@in_browser
def test_equations_are_set(browser):
    browser.get(f'{browser.site}/12_channels.html')
    wait_for(browser, 'document.querySelectorAll("mjx-container svg").length', 'no equation was set')
    n,made,bad = browser.execute_script('return [document.querySelectorAll(".math").length, document.querySelectorAll(".math mjx-container").length, document.querySelectorAll("mjx-merror, [data-mml-node=merror]").length]')
    assert n==made>2 and not bad

@in_browser
def test_search_finds_the_network(browser):
    browser.get(f'{browser.site}/search.html?q=PMNet')
    wait_for(browser, 'document.querySelectorAll("ul.search li a").length', 'the search finds nothing')
    assert '22_pmnet.html' in browser.execute_script('return [...document.querySelectorAll("ul.search li a")].map(o => o.href).join(" ")')

@in_browser
def test_light_dark_and_copy_buttons(browser):
    browser.get(f'{browser.site}/13_parts.html')
    wait_for(browser, 'document.querySelectorAll("button.copybtn").length', 'no copy button')
    def paper(): return browser.execute_script('return getComputedStyle(document.body).backgroundColor')
    seen = {paper()}
    for _ in range(3):
        browser.execute_script('document.querySelector("button.theme-toggle").click()')
        seen.add(paper())
    assert len(seen)==2

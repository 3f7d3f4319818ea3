"The site, built as `make docs` builds it, and read: every link, every equation, in a browser where there is one"
import os, re, shutil, subprocess, sys, threading
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

def sources(folder):
    "A copy of what the site is made of"
    shutil.copytree(ROOT/'nbs', folder/'nbs', ignore=shutil.ignore_patterns('models','data','__pycache__'))
    for o in ('settings.ini','pyproject.toml',*pages.EXTRA): shutil.copy(ROOT/o, folder/o)
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

def test_arguments_stand_in_tables(site):
    page = (site/'reference/learner.html').read_text(encoding='utf-8')
    assert 'fixed weights of the ID losses' in page and '<td' in page

def test_nothing_of_the_paper_is_without_its_code():
    found = pages.paper_map(ROOT, pages.symbols(ROOT))
    assert len(found)==8+1+9+7
    assert not [o for o,(names,told) in found.items() if not names], 'no public name says that it is this'
    assert not [o for o,(names,told) in found.items() if not told], 'no page tells of this'

@pytest.mark.parametrize('said,want', [('(eq. 1, 2)', {('Eq.','1'),('Eq.','2')}), ('eq. 5-7', {('Eq.','5'),('Eq.','6'),('Eq.','7')}), ('Tables III and IV', {('Table','III'),('Table','IV')}),
    ('Tables I to III', {('Table','I'),('Table','II'),('Table','III')}), ('(Fig. 5a)', {('Fig.','5')}), (r'$$x \tag{4}$$', {('Eq.','4')}), ('Exp-6', {('Table','III')}), ('a table, eq. 12, Table of', set()),
    ('Algorithm 1, lines 2-5', {('Algorithm','1')})])
def test_what_a_text_says_of_the_paper(said, want): assert pages.mentions(said)==want

def test_the_same_sources_give_the_same_bytes(site, tmp_path):
    build(sources(tmp_path), tmp_path/'html')
    a,b = ({p.relative_to(d).as_posix(): p.read_bytes() for p in d.rglob('*') if p.is_file() and p.name!='.buildinfo'} for d in (site, tmp_path/'html'))
    assert a.keys()==b.keys() and not [n for n in a if a[n]!=b[n]]

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
@pytest.mark.parametrize('page', ['index','13_parts','40_metrics','62_evidence','paper','reference/parts'])
def test_a_page_opens_without_an_error_and_fits(browser, page):
    browser.get_log('browser')
    for width in (400,1400):
        narrow(browser, width)
        browser.get(f'{browser.site}/{page}.html')
        wait_for(browser, 'document.readyState=="complete"', 'the page is not loaded')
        wide,size,line = browser.execute_script('const p = document.querySelector("article p"); return [document.documentElement.scrollWidth, parseFloat(getComputedStyle(p).fontSize), p.getBoundingClientRect().width]')
        assert wide<=width, f'{page} scrolls sideways: {wide} of {width} pixels'
        assert size>=15 and .5*min(width, 1000)<=line<=900
    errors = [o for o in browser.get_log('browser') if o['level'] in ('SEVERE','WARNING') and 'favicon' not in o['message']]
    assert not errors, errors[:3]

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

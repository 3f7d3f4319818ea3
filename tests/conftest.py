"Settings of the whole run: no window for a plot, and no stop-watch on hypothesis, whose deadline a busy machine breaks"
import os
os.environ.setdefault('MPLBACKEND', 'Agg')
from hypothesis import settings

settings.register_profile('calm', deadline=None)
settings.load_profile('calm')

"Settings of the whole run: no window for a plot; hypothesis draws the same examples each time, and without a stop-watch, whose deadline a busy machine breaks"
import os
os.environ.setdefault('MPLBACKEND', 'Agg')
from hypothesis import settings

settings.register_profile('calm', deadline=None, derandomize=True)
settings.load_profile('calm')

"`python -m vehicle_reid` is `vehicle-reid`, for launchers that start modules"
import sys
from vehicle_reid.cli import main
sys.exit(main())

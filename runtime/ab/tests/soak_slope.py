# The slope that `src/soak/slope_tests.rs` expects, by numpy and scipy: 320 samples of 30 s, of which the warm-up leaves out 4; 12 blocks of
# neighbours. Run it with: python3 tests/soak_slope.py
import numpy as np
from scipy import stats
n=np.arange(320); y=100+n/50+3*np.sin(n/7); t=30*n+15.0
y,t=y[4:],t[4:]
k=len(y); cut=[i*k//12 for i in range(13)]
Y=np.array([y[a:b].mean() for a,b in zip(cut,cut[1:])]); T=np.array([t[a:b].mean() for a,b in zip(cut,cut[1:])])
r=stats.linregress(T,Y); e=Y-(r.intercept+r.slope*T)
c=(e[1:]*e[:-1]).sum()/(e*e).sum(); c=min(max(c+2*(1+4*max(c,0))/12,0),.95)
half=stats.t.ppf(.995,10)*r.stderr*np.sqrt((1+c)/(1-c))
print([float(v*86400) for v in (r.slope,r.slope-half,r.slope+half)])

import os, time
_f=os.fsync
def fsync(d):
    t=time.perf_counter()
    try: return _f(d)
    finally:
        with open("/tmp/w/r9.fslog","a") as g: g.write(f"{time.perf_counter()-t}\n")
os.fsync=fsync

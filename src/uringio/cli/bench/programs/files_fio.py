"""
Blocks read by fio, on its io_uring engine with fixed buffers and a registered file.

With ``batches`` it submits and waits for a quarter of the depth at a time, and in the page cache
for all of it; without, for one.
"""

import json
import shutil
import subprocess

from _reads import BLOCK, job, tell

the_job = job()
fio = shutil.which("fio")
if fio is None:
    raise SystemExit("unavailable: no fio on PATH")
at_once = 1
if "batches" in the_job.options:
    at_once = max(the_job.depth // 4, 1) if the_job.direct else the_job.depth
command = [
    fio,
    "--name=reads",
    f"--filename={the_job.path}",
    "--readonly",
    "--ioengine=io_uring",
    "--registerfiles",
    "--fixedbufs",
    "--rw=randread",
    "--norandommap",
    f"--bs={BLOCK}",
    f"--direct={int(the_job.direct)}",
    "--invalidate=0",  # it would empty the page cache
    f"--iodepth={the_job.depth}",
    f"--iodepth_batch_submit={at_once}",
    f"--iodepth_batch_complete_min={at_once}",
    f"--iodepth_low={max(the_job.depth - at_once, 1)}",
    f"--cpus_allowed={the_job.cpu}",
    "--gtod_reduce=1",
    "--time_based",
    f"--ramp_time={round(the_job.warm_seconds * 1000)}ms",
    f"--runtime={round(the_job.seconds * 1000)}ms",
    "--output-format=json",
]
run = subprocess.run(command, capture_output=True, text=True, check=False)
if run.returncode:
    raise SystemExit(f"unavailable: fio: {run.stderr.strip() or run.stdout.strip()}"[:300])
said = json.loads(run.stdout[run.stdout.index("{") :])["jobs"][0]
read = said["read"]
us = read["runtime"] * 1000 / read["total_ios"]
tell((said["usr_cpu"] + said["sys_cpu"]) / 100 * us, us, said["minf"] / read["total_ios"])

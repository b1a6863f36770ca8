"""
What this machine lets io_uring do, and what uringio makes of it, as one record.

``uringio probe`` says the same in words; a program that wants to know asks here:

```python
import uringio

report = uringio.probe()
if not report.works:
    print(report.refusal)
```
"""

from ._refusals import Refusal
from ._report import Feature, Limit, Machine, Operation, Report, RingReport, Workers, probe
from ._surface import Member, Surface

__all__ = [
    "Feature",
    "Limit",
    "Machine",
    "Member",
    "Operation",
    "Refusal",
    "Report",
    "RingReport",
    "Surface",
    "Workers",
    "probe",
]

"""What several test files share; no test file imports another one."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

import subprocess
import sys


def test_privacy_imports_neither_torch_nor_the_slow_accountant():
    program = (
        "import sys, privkt.privacy\n"
        "bad = [name for name in ('torch', 'transformers', 'dp_accounting') if name in sys.modules]\n"
        "sys.exit(', '.join(bad) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

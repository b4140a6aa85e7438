#!/usr/bin/env bash
# The tests of what is compiled for a CPU, as an ARM machine would run them: an arm64 Python and torch in QEMU.
#
#   bash ci/arm.sh [FOLDER]      # 1 GB there, kept for the next time; build/arm by default
#
# On Debian or Ubuntu for x86-64, with qemu-user and gcc-aarch64-linux-gnu installed. It takes half an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-build/arm}"
folder=$(cd "${1:-build/arm}" && pwd)

# An arm64 Python, beside the system's own packages.
if [ ! -e "$folder/root" ]; then
  mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
  touch "$folder/state/status"
  apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
    -o "Dir::State=$folder/state" -o "Dir::State::status=$folder/state/status" -o "Dir::Cache=$folder/cache")
  "${apt[@]}" update
  "${apt[@]}" install --yes --no-install-recommends --download-only python3 libpython3-stdlib libgomp1 libstdc++6
  for package in "$folder"/cache/archives/*.deb; do
    dpkg-deb --extract "$package" "$folder/root.part"
  done
  mv "$folder/root.part" "$folder/root"
fi
python=$(find "$folder/root/usr/bin" -name 'python3.[0-9]*' -printf '%f\n' | head -n 1)

# What the tests need, in the versions of constraints.txt; of torch the last that needs no CUDA on ARM.
if [ ! -e "$folder/site" ]; then
  platform=(--platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64
    --python-version "${python#python}" --only-binary :all:)
  grep -vE '^(setuptools|torch)' constraints.txt > "$folder/constraints.txt"
  python3 -m pip install --quiet "${platform[@]}" --constraint "$folder/constraints.txt" --target "$folder/site.part" \
    click filelock jsonschema numpy psutil pyyaml tqdm hypothesis pytest pytest-xdist regex tiktoken \
    sympy networkx jinja2 fsspec typing-extensions
  python3 -m pip install --quiet "${platform[@]}" --constraint "$folder/constraints.txt" --target "$folder/site.part" \
    --no-deps 'torch<2.11'
  mv "$folder/site.part" "$folder/site"
fi

# Stands for the C compiler of an ARM machine, whose processor it cannot ask.
cat > "$folder/cc" << 'END'
#!/usr/bin/env bash
exec aarch64-linux-gnu-gcc "${@/#-march=native/-march=armv8.2-a+dotprod+fp16}"
END
chmod +x "$folder/cc"

export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD:$folder/site" XDG_CACHE_HOME="$folder/cache" CC="$folder/cc"
exec qemu-aarch64 -L "$folder/root" "$folder/root/usr/bin/$python" -m pytest -n 0 -p no:cacheprovider \
  tests/kernels/test_cpu.py tests/kernels/test_cpu_library.py tests/decode/test_cpu_decoding.py tests/decode/test_int8.py \
  tests/train/distil/test_loss.py tests/tokens/test_characters.py tests/text/copies/test_library.py tests/tokens/bpe/test_words.py

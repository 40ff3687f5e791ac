"""``pip install .``: setuptools takes the Python sources, CMake makes the messages and everything ROS looks up."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent


class BinaryDistribution(Distribution):
    """The messages are compiled: the wheel belongs to one Python and one platform."""

    def has_ext_modules(self) -> bool:
        return True


class BuildWithMessages(build):
    """The usual build, then the tree that `cmake --install` makes: Python files join ours, the rest is data."""

    def run(self) -> None:
        super().run()
        prefix = self.cmake_install(Path(self.build_temp).resolve())
        site_packages = next(prefix.glob("lib*/python*/site-packages"))
        for source in sorted(path for path in prefix.rglob("*") if path.is_file()):
            if source.is_relative_to(site_packages / "lotus2_ros"):
                target = Path(self.build_lib, source.relative_to(site_packages))
                if not target.exists():  # the generated __init__.py is empty, ours stays
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, target)
            elif not source.is_relative_to(site_packages):
                folder = str(source.relative_to(prefix).parent)
                self.distribution.data_files.append((folder, [os.path.relpath(source, ROOT)]))

    def cmake_install(self, build_folder: Path) -> Path:
        ros = importlib.util.find_spec("rosidl_adapter")
        if ros is None or ros.origin is None:
            raise SystemExit("lotus2_ros: rosidl_adapter is not installed; install requirements/build.txt first")
        ros_prefix = Path(ros.origin).parents[4]  # <prefix>/lib/python3.X/site-packages/rosidl_adapter/__init__.py
        prefix, cmake = build_folder / "prefix", str(build_folder / "cmake")
        shutil.rmtree(prefix, ignore_errors=True)
        environment = {
            **os.environ,
            "AMENT_PREFIX_PATH": str(ros_prefix),
            "CMAKE_PREFIX_PATH": str(ros_prefix),
            "PATH": f"{ros_prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        configure = ["cmake", "-S", str(ROOT), "-B", cmake, f"-DPython3_EXECUTABLE={sys.executable}"]
        configure += [f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DCMAKE_BUILD_TYPE=Release", "-Wno-dev"]
        subprocess.run(configure, env=environment, check=True)
        subprocess.run(["cmake", "--build", cmake, "--parallel"], env=environment, check=True)
        # Component: neither the Python sources nor the command, which setuptools installs itself.
        install = ["cmake", "--install", cmake, "--component", "Unspecified"]
        subprocess.run(install, env=environment, check=True)
        return prefix


setup(distclass=BinaryDistribution, cmdclass={"build": BuildWithMessages}, data_files=[])

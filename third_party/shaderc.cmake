# third_party::glsl (glsl.h over shaderc) and QN_HAVE_SHADERC. Debian 12's libshaderc.so lacks the
# compiler it wraps (undefined symbols of glslang), so there the static archives are linked, once,
# into a shared library, instead of 8 MB into every program.
include(CheckCSourceCompiles)
set(QN_HAVE_SHADERC FALSE)
pkg_check_modules(shaderc IMPORTED_TARGET GLOBAL shaderc)
if(NOT shaderc_FOUND)
  message(STATUS "quoin: shaderc is missing (Debian: apt-get install libshaderc-dev)")
  return()
endif()
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::shaderc)
check_c_source_compiles("#include <shaderc/shaderc.h>
int main(void) { return !shaderc_compiler_initialize(); }" QN_SHADERC_LINKS)
unset(CMAKE_REQUIRED_LIBRARIES)

set(libraries PkgConfig::shaderc)
if(NOT QN_SHADERC_LINKS)
  set(libraries "")
  foreach(name shaderc_combined glslang MachineIndependent GenericCodeGen OSDependent OGLCompiler
          SPIRV SPIRV-Tools-opt SPIRV-Tools)
    find_library(QN_${name}_ARCHIVE lib${name}.a)
    mark_as_advanced(QN_${name}_ARCHIVE)
    if(NOT QN_${name}_ARCHIVE)
      message(STATUS "quoin: shaderc does not link, and lib${name}.a is missing "
                     "(Debian: apt-get install glslang-dev spirv-tools)")
      return()
    endif()
    list(APPEND libraries ${QN_${name}_ARCHIVE})
  endforeach()
  set(libraries -Wl,--start-group ${libraries} -Wl,--end-group -Wl,--exclude-libs,ALL stdc++ m
                Threads::Threads)
endif()

add_library(qn_glsl SHARED glsl.c)
target_include_directories(qn_glsl PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}
                           PRIVATE ${shaderc_INCLUDE_DIRS})
target_link_libraries(qn_glsl PRIVATE ${libraries})
set_target_properties(qn_glsl PROPERTIES OUTPUT_NAME quoin-glsl)
add_library(third_party::glsl ALIAS qn_glsl)
set(QN_HAVE_SHADERC TRUE)

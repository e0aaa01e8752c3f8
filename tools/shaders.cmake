# Compiles every form of every row of the kernel table to SPIR-V and writes kernels_spirv.c, which
# embeds them: arrays qn_spirv_<id>_<form><storage> and the table qn_kernel_spirv.
set(QN_KERNELS_DEF ${CMAKE_SOURCE_DIR}/engine/include/quoin/kernels.def)
set(QN_SHADER_DIR ${CMAKE_SOURCE_DIR}/shaders)
set(QN_SPIRV_DIR ${CMAKE_BINARY_DIR}/spirv)
file(MAKE_DIRECTORY ${QN_SPIRV_DIR})
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${QN_KERNELS_DEF})

set(includes "")
set(entries "")
set(outputs "")
file(STRINGS ${QN_KERNELS_DEF} rows REGEX "^QN_KERNEL\\(")
foreach(row IN LISTS rows)
  if(NOT row MATCHES "^QN_KERNEL\\(([a-z0-9_]+), *\"([^\"]+)\", *\"([rwbtx]*)\", *([0-9]+), *([PFXW| ]+)\\)")
    message(FATAL_ERROR "kernels.def: cannot read: ${row}")
  endif()
  set(id ${CMAKE_MATCH_1})
  set(file ${CMAKE_MATCH_2})
  set(forms ${CMAKE_MATCH_5})
  set(storages "f32")
  if(forms MATCHES "X")
    list(APPEND storages "f16" "bf16")
  endif()
  foreach(form P F)
    if(NOT forms MATCHES ${form})
      continue()
    endif()
    foreach(storage IN LISTS storages)
      set(flags "")
      if(form STREQUAL "F")
        list(APPEND flags -DQN_FLAT)
      endif()
      if(storage STREQUAL "f16")
        list(APPEND flags -DQN_F16)
      elseif(storage STREQUAL "bf16")
        list(APPEND flags -DQN_BF16)
      endif()
      set(name ${id}_${form}_${storage})
      set(out ${QN_SPIRV_DIR}/${name}.inc)
      add_custom_command(
        OUTPUT ${out}
        COMMAND ${QN_GLSLC} -O --target-env=vulkan1.2 -mfmt=num -I${QN_SHADER_DIR} ${flags}
                -MD -MF ${out}.d -MT ${out} -o ${out} ${QN_SHADER_DIR}/${file}
        DEPENDS ${QN_SHADER_DIR}/${file}
        DEPFILE ${out}.d
        COMMENT "glslc ${name}" VERBATIM)
      list(APPEND outputs ${out})
      string(APPEND includes "static const uint32_t ${name}[] = {\n#include \"${name}.inc\"\n};\n")
      string(APPEND entries "    { \"${id}\", '${form}', QN_STORE_${storage}, ${name}, sizeof ${name} },\n")
    endforeach()
  endforeach()
endforeach()
string(REPLACE "QN_STORE_f32" "QN_STORE_F32" entries "${entries}")
string(REPLACE "QN_STORE_f16" "QN_STORE_F16" entries "${entries}")
string(REPLACE "QN_STORE_bf16" "QN_STORE_BF16" entries "${entries}")
file(CONFIGURE OUTPUT ${QN_SPIRV_DIR}/kernels_spirv.c CONTENT
"// Made by tools/shaders.cmake from the kernel table.
#include \"spirv.h\"
${includes}
const qn_spirv qn_kernel_spirv[] = {
${entries}    { 0 },
};
" @ONLY)
add_library(qn_spirv OBJECT ${QN_SPIRV_DIR}/kernels_spirv.c)
set_source_files_properties(${QN_SPIRV_DIR}/kernels_spirv.c PROPERTIES OBJECT_DEPENDS "${outputs}")
target_include_directories(qn_spirv PRIVATE ${QN_SPIRV_DIR} ${CMAKE_SOURCE_DIR}/engine
                           ${CMAKE_SOURCE_DIR}/engine/include)

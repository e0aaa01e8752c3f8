# Compiles every form of every row of the kernel table to SPIR-V and writes kernels_spirv.c, which
# embeds them: arrays qn_spirv_<id>_<form><storage> and the table qn_kernel_spirv.
set(QN_KERNELS_DEF ${CMAKE_SOURCE_DIR}/engine/include/quoin/kernels.def)
set(QN_SHADER_DIR ${CMAKE_SOURCE_DIR}/shaders)
set(QN_SPIRV_DIR ${CMAKE_BINARY_DIR}/spirv)
file(MAKE_DIRECTORY ${QN_SPIRV_DIR})

# Cooperative matrices: a compiler that knows the KHR dialect writes it, the modules of others are
# rewritten.
add_library(qn_coopmat STATIC ${CMAKE_SOURCE_DIR}/tools/coopmat/khr.c)
target_include_directories(qn_coopmat PUBLIC ${CMAKE_SOURCE_DIR}/tools/coopmat)
add_executable(coopmat_khr ${CMAKE_SOURCE_DIR}/tools/coopmat/main.c)
target_link_libraries(coopmat_khr PRIVATE qn_coopmat)
file(WRITE ${QN_SPIRV_DIR}/probe.comp
     "#version 450\n#extension GL_KHR_cooperative_matrix : require\nvoid main() {}\n")
execute_process(COMMAND ${QN_GLSLC} --target-env=vulkan1.2 -o ${QN_SPIRV_DIR}/probe.spv
                        ${QN_SPIRV_DIR}/probe.comp
                RESULT_VARIABLE QN_NO_KHR_MATRIX OUTPUT_QUIET ERROR_QUIET)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${QN_KERNELS_DEF})

set(includes "")
set(entries "")
set(outputs "")
file(STRINGS ${QN_KERNELS_DEF} rows REGEX "^QN_KERNEL\\(")
foreach(row IN LISTS rows)
  if(NOT row MATCHES "^QN_KERNEL\\(([a-z0-9_]+), *\"([^\"]+)\", *\"([rwbtxs]*)\", *([0-9]+), *([PFXWMQ| ]+)\\)")
    message(FATAL_ERROR "kernels.def: cannot read: ${row}")
  endif()
  set(id ${CMAKE_MATCH_1})
  set(file ${CMAKE_MATCH_2})
  set(forms ${CMAKE_MATCH_5})
  set(storages "f32")
  if(forms MATCHES "X")
    list(APPEND storages "f16" "bf16")
  endif()
  if(forms MATCHES "Q")
    list(APPEND storages "q8_0" "q4_0")
  endif()
  foreach(form P F M)
    if(NOT forms MATCHES ${form})
      continue()
    endif()
    foreach(storage IN LISTS storages)
      set(flags "")
      if(form STREQUAL "F")
        list(APPEND flags -DQN_FLAT)
      endif()
      string(TOUPPER ${storage} STORAGE)
      if(NOT storage STREQUAL "f32")
        list(APPEND flags -DQN_${STORAGE})
      endif()
      set(name ${id}_${form}_${storage})
      set(out ${QN_SPIRV_DIR}/${name}.inc)
      set(source ${QN_SHADER_DIR}/${file})
      set(compile ${QN_GLSLC} -O --target-env=vulkan1.2 -I${QN_SHADER_DIR} ${flags}
                  -MD -MF ${out}.d -MT ${out})
      if(form STREQUAL "M" AND QN_NO_KHR_MATRIX)
        set(command COMMAND ${compile} -o ${out}.spv ${source}
                    COMMAND coopmat_khr ${out}.spv ${out})
      else()
        set(command COMMAND ${compile} -mfmt=num -o ${out} ${source})
      endif()
      add_custom_command(OUTPUT ${out} ${command} DEPENDS ${source} DEPFILE ${out}.d
                         COMMENT "glslc ${name}" VERBATIM)
      list(APPEND outputs ${out})
      string(APPEND includes "static const uint32_t ${name}[] = {\n#include \"${name}.inc\"\n};\n")
      string(APPEND entries "    { \"${id}\", '${form}', QN_STORE_${STORAGE}, ${name}, sizeof ${name} },\n")
    endforeach()
  endforeach()
endforeach()
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

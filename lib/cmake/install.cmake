# Installation: headers, both libraries shared and static, pkg-config files, and a package for find_package(pdroute).
include(CMakePackageConfigHelpers)

set(PDR_INSTALLED pdroute pdroute_static)
set_target_properties(pdroute_static PROPERTIES EXPORT_NAME static)
if(PDR_BUILD_HOST)
  list(APPEND PDR_INSTALLED pdroute_host pdroute_host_static)
  set_target_properties(pdroute_host PROPERTIES EXPORT_NAME host)
  set_target_properties(pdroute_host_static PROPERTIES EXPORT_NAME host_static)
  get_target_property(libraries pdroute_host_static LINK_LIBRARIES)
  if("PkgConfig::CURL" IN_LIST libraries)
    set(PDR_PC_CURL libcurl)
  endif()
endif()

install(TARGETS ${PDR_INSTALLED} EXPORT pdroute
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES include/pdroute/pdroute.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/pdroute)
if(PDR_BUILD_HOST)
  install(FILES include/pdroute/host.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/pdroute)
endif()

set(PDR_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/pdroute)
install(EXPORT pdroute NAMESPACE pdroute:: FILE pdroute-targets.cmake DESTINATION ${PDR_CMAKE_DIR})
configure_package_config_file(lib/cmake/pdroute-config.cmake.in pdroute-config.cmake INSTALL_DESTINATION ${PDR_CMAKE_DIR})
write_basic_package_version_file(pdroute-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pdroute-config.cmake ${PROJECT_BINARY_DIR}/pdroute-config-version.cmake
  DESTINATION ${PDR_CMAKE_DIR})

# Relative to the .pc file itself, so that the installed tree may be moved.
file(RELATIVE_PATH PDR_PC_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
string(REGEX REPLACE "/$" "" PDR_PC_PREFIX ${PDR_PC_PREFIX})
configure_file(lib/cmake/libpdroute.pc.in libpdroute.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/libpdroute.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(PDR_BUILD_HOST)
  configure_file(lib/cmake/libpdroute_host.pc.in libpdroute_host.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/libpdroute_host.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

/* The report page's style and scripts, built in from report/ by report/embed.cmake. */
#ifndef SIMULATE_REPORT_PAGE_H
#define SIMULATE_REPORT_PAGE_H

#include <stddef.h>

extern const unsigned char sim_page_css[], sim_page_draw[], sim_page_model[], sim_page_script[];
extern const size_t        sim_page_css_len, sim_page_draw_len, sim_page_model_len, sim_page_script_len;

#endif

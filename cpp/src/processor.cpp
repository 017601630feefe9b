#include "processor.h"

#include <fstream>
#include <sstream>
#include <string>

namespace janus {

bool has_vnni() {
    std::ifstream lines("/proc/cpuinfo");
    for (std::string line; std::getline(lines, line);) {
        if (line.rfind("flags", 0) != 0) continue;
        std::istringstream flags(line);
        for (std::string flag; flags >> flag;) {
            if (flag == "avx512_vnni" || flag == "avx_vnni") return true;
        }
        return false; // All processors of a machine have the same.
    }
    return false;
}

} // namespace janus

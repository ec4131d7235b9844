#include "policy.h"

const pdr_policy *pdr_policy_of(uint32_t number)
{
    switch (number) {
    case PDR_POLICY_DEFAULT: return &pdr_policy_default;
    case PDR_POLICY_ROUND_ROBIN: return &pdr_policy_round_robin;
    case PDR_POLICY_RANDOM: return &pdr_policy_random;
    case PDR_POLICY_LEAST_TOKENS: return &pdr_policy_least_tokens;
    case PDR_POLICY_POWER_OF_TWO: return &pdr_policy_power_of_two;
    default: return 0;
    }
}

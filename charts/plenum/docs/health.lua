-- Health of Meeting, BreakoutRoom and MediaWorkerPool for Argo CD. One script serves the three kinds:
-- they speak the same conditions. Plain Lua 5.1.
local hs = { status = "Progressing", message = "waiting for the controller" }

if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "being deleted"
  return hs
end

-- A fresh object has observedGeneration -1: nobody has looked at it yet.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end

local by = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  by[condition.type] = condition
end

local function is(type, status)
  return by[type] ~= nil and by[type].status == status
end

local function say(condition)
  if condition.message == nil or condition.message == "" then
    return condition.reason
  end
  return condition.reason .. ": " .. condition.message
end

if is("Stalled", "True") then
  hs.status = "Degraded"
  hs.message = say(by.Stalled)
elseif is("Reconciling", "True") then
  hs.message = say(by.Reconciling)
elseif is("Ready", "True") then
  hs.status = "Healthy"
  if by.Ready.reason == "Suspended" then
    hs.status = "Suspended"
  end
  hs.message = say(by.Ready)
elseif by.Ready ~= nil then
  hs.message = say(by.Ready)
end

return hs

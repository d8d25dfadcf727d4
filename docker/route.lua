-- Radiographs that came from a modality go to Thoracle. What Thoracle sends back is SR, OT, PR, KO or SEG, and stays.
function OnStoredInstance(instanceId, tags, metadata, origin)
   local radiograph = tags["Modality"] == "CR" or tags["Modality"] == "DX"
   if radiograph and origin["RequestOrigin"] == "DicomProtocol" then
      SendToModality(instanceId, "thoracle")
   end
end

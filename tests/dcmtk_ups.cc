// A client of Unified Procedure Steps (PS3.4 Annex CC), made of OFFIS DCMTK for the tests.
//
//   dcmtk_ups find AE PORT SERVICE SYNTAX FOLDER KEY...
//   dcmtk_ups stop ... as find, with a C-CANCEL after the fifth answer
//   dcmtk_ups get  AE PORT SERVICE SYNTAX FOLDER UID [TAG...]
//   dcmtk_ups set  AE PORT SERVICE SYNTAX FOLDER UID KEY...
//   dcmtk_ups act  AE PORT SERVICE SYNTAX FOLDER UID ACTION-TYPE [KEY...]
//   dcmtk_ups plain ... as act, with the class that DCMTK's own N-ACTION names
//   dcmtk_ups hear AE PORT FOLDER
//
// AE is who calls THORACLE at PORT of this machine; SERVICE is pull, watch or query; SYNTAX is
// implicit, explicit or big; a KEY is an attribute with its value as findscu and dcmodify have it,
// e.g. "ScheduledWorkitemCodeSequence[0].CodeValue=110005". For each answer a line is printed:
// status, Affected SOP Class UID, Affected SOP Instance UID, Error Comment, parted by tabs. Its data
// set, if it has one, is written to FOLDER/1.dcm, 2.dcm, ...
//
// "hear" is a station AE at PORT that takes event reports until it is killed. Of each it prints Event
// Type ID, Affected SOP Class UID and Affected SOP Instance UID, and writes the data set as above.

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmdata/dcpath.h>
#include <dcmtk/dcmnet/scp.h>
#include <dcmtk/dcmnet/scu.h>

using Text = std::string;
using Texts = std::vector<Text>;

static const std::map<Text, const char *> SERVICES = {
    {"pull", UID_UnifiedProcedureStepPullSOPClass},
    {"watch", UID_UnifiedProcedureStepWatchSOPClass},
    {"query", UID_UnifiedProcedureStepQuerySOPClass},
};
static const std::map<Text, const char *> SYNTAXES = {
    {"implicit", UID_LittleEndianImplicitTransferSyntax},
    {"explicit", UID_LittleEndianExplicitTransferSyntax},
    {"big", UID_BigEndianExplicitTransferSyntax},
};

static void require(bool met, const Text &what) {
    if (met) return;
    std::fprintf(stderr, "%s\n", what.c_str());
    std::exit(2);
}

static void require(const OFCondition &condition, const Text &what) {
    require(condition.good(), what + ": " + condition.text());
}

static void keep(DcmDataset *ds, const Text &folder, int number) {
    if (ds == nullptr) return;
    DcmFileFormat file(ds);
    const Text path = folder + "/" + std::to_string(number) + ".dcm";
    require(file.saveFile(path.c_str(), EXS_LittleEndianExplicit, EET_ExplicitLength,
                          EGL_recalcGL, EPD_noChange, 0, 0, EWM_dataset), path);
}

static void print(Uint16 status, const char *sop_class, const char *uid, DcmDataset *details) {
    OFString comment;
    if (details != nullptr) details->findAndGetOFString(DCM_ErrorComment, comment);
    std::printf("0x%04X\t%s\t%s\t%s\n", status, sop_class, uid, comment.c_str());
}

static void keys(DcmDataset &ds, const Texts &arguments, size_t first) {
    DcmPathProcessor paths;
    for (size_t i = first; i < arguments.size(); ++i)
        require(paths.applyPathWithValue(&ds, arguments[i].c_str()), arguments[i]);
}

// ---- who asks --------------------------------------------------------------------------------

class Client : public DcmSCU {
public:
    Client(const Texts &arguments) : folder_(arguments[5]) {
        require(SERVICES.count(arguments[3]) && SYNTAXES.count(arguments[4]), "no such service or syntax");
        OFList<OFString> syntaxes;
        syntaxes.push_back(SYNTAXES.at(arguments[4]));
        setAETitle(arguments[1].c_str());
        setPeerAETitle("THORACLE");
        setPeerHostName("127.0.0.1");
        setPeerPort(static_cast<Uint16>(std::stoi(arguments[2])));
        setDIMSETimeout(60);
        require(addPresentationContext(SERVICES.at(arguments[3]), syntaxes), "context");
        require(initNetwork(), "network");
        require(negotiateAssociation(), "association");
        context_ = findPresentationContextID(SERVICES.at(arguments[3]), SYNTAXES.at(arguments[4]));
        require(context_ != 0, "presentation context not accepted");
    }

    void find(DcmDataset &identifier, int stop_after = 0) {
        stop_after_ = stop_after;
        OFList<QRResponse *> answers;
        require(sendFINDRequest(context_, &identifier, &answers), "C-FIND");
        int number = 0;
        for (QRResponse *answer : answers) {
            print(answer->m_status, answer->m_affectedSOPClassUID.c_str(), "", answer->m_statusDetail);
            keep(answer->m_dataset, folder_, ++number);
            delete answer;
        }
    }

    // Names the class of the presentation context.
    void plain(const Text &uid, int type, DcmDataset &information) {
        Uint16 status = 0;
        require(sendACTIONRequest(context_, uid.c_str(), static_cast<Uint16>(type), &information, status),
                "N-ACTION");
        print(status, "", uid.c_str(), nullptr);
    }

    // The class that a message names is Push, whatever was negotiated (PS3.4 Section CC.3.1).
    template <class Request> static void name(Request &request, const Text &uid) {
        request.MessageID = MESSAGE_ID;
        OFStandard::strlcpy(request.RequestedSOPClassUID, UID_UnifiedProcedureStepPushSOPClass,
                            DIC_UI_LEN + 1);
        OFStandard::strlcpy(request.RequestedSOPInstanceUID, uid.c_str(), DIC_UI_LEN + 1);
    }

    void get(const Text &uid, const Texts &tags) {
        std::vector<DIC_US> numbers;
        for (const Text &one : tags) {
            DcmTag tag;
            require(DcmTag::findTagFromName(one.c_str(), tag), one);
            numbers.push_back(tag.getGroup());
            numbers.push_back(tag.getElement());
        }
        T_DIMSE_Message request = {};
        request.CommandField = DIMSE_N_GET_RQ;
        T_DIMSE_N_GetRQ &message = request.msg.NGetRQ;
        name(message, uid);
        message.DataSetType = DIMSE_DATASET_NULL;
        message.ListCount = static_cast<int>(numbers.size());
        message.AttributeIdentifierList = numbers.empty() ? nullptr : numbers.data();
        send(request, nullptr);
        finish(receive(DIMSE_N_GET_RSP).msg.NGetRSP);
    }

    void set(const Text &uid, DcmDataset &modification) {
        T_DIMSE_Message request = {};
        request.CommandField = DIMSE_N_SET_RQ;
        T_DIMSE_N_SetRQ &message = request.msg.NSetRQ;
        name(message, uid);
        message.DataSetType = DIMSE_DATASET_PRESENT;
        send(request, &modification);
        finish(receive(DIMSE_N_SET_RSP).msg.NSetRSP);
    }

    void act(const Text &uid, int type, DcmDataset &information) {
        T_DIMSE_Message request = {};
        request.CommandField = DIMSE_N_ACTION_RQ;
        T_DIMSE_N_ActionRQ &message = request.msg.NActionRQ;
        name(message, uid);
        message.ActionTypeID = static_cast<DIC_US>(type);
        message.DataSetType = information.isEmpty() ? DIMSE_DATASET_NULL : DIMSE_DATASET_PRESENT;
        send(request, information.isEmpty() ? nullptr : &information);
        finish(receive(DIMSE_N_ACTION_RSP).msg.NActionRSP);
    }

protected:
    OFCondition handleFINDResponse(const T_ASC_PresentationContextID context, QRResponse *answer,
                                   OFBool &wait_for_next) override {
        if (++found_ == stop_after_) require(sendCANCELRequest(context), "C-CANCEL");
        return DcmSCU::handleFINDResponse(context, answer, wait_for_next);
    }

private:
    static const DIC_US MESSAGE_ID = 1; // one message an association

    Text folder_;
    T_ASC_PresentationContextID context_ = 0;
    int found_ = 0, stop_after_ = 0;
    T_DIMSE_Message answer_ = {};
    std::unique_ptr<DcmDataset> details_;

    void send(T_DIMSE_Message &request, DcmDataset *ds) {
        require(sendDIMSEMessage(context_, &request, ds), "request");
    }

    T_DIMSE_Message &receive(T_DIMSE_Command wanted) {
        T_ASC_PresentationContextID context = 0;
        DcmDataset *details = nullptr;
        require(receiveDIMSECommand(&context, &answer_, &details), "answer");
        details_.reset(details);
        require(answer_.CommandField == wanted && context == context_, "another answer than asked for");
        return answer_;
    }

    template <class Answer> void finish(const Answer &answer) {
        require(answer.MessageIDBeingRespondedTo == MESSAGE_ID, "an answer to another message");
        const bool has_class = answer.opts & 0x0001, has_uid = answer.opts & 0x0002;
        print(answer.DimseStatus, has_class ? answer.AffectedSOPClassUID : "",
              has_uid ? answer.AffectedSOPInstanceUID : "", details_.get());
        if (answer.DataSetType == DIMSE_DATASET_NULL) return;
        T_ASC_PresentationContextID context = context_;
        DcmDataset *ds = nullptr;
        require(receiveDIMSEDataset(&context, &ds), "data set of the answer");
        keep(ds, folder_, 1);
        delete ds;
    }
};

// ---- who is told -----------------------------------------------------------------------------

class Station : public DcmSCP {
public:
    Station(const Texts &arguments) : folder_(arguments[3]) {
        OFList<OFString> syntaxes;
        syntaxes.push_back(UID_LittleEndianExplicitTransferSyntax);
        syntaxes.push_back(UID_LittleEndianImplicitTransferSyntax);
        getConfig().setAETitle(arguments[1].c_str());
        getConfig().setPort(static_cast<Uint16>(std::stoi(arguments[2])));
        // Who tells calls, and asks to be the SCP all the same (PS3.7 Section D.3.3.4): DCMTK lets it.
        require(getConfig().addPresentationContext(UID_UnifiedProcedureStepEventSOPClass, syntaxes), "context");
    }

protected:
    OFCondition handleIncomingCommand(T_DIMSE_Message *message,
                                      const DcmPresentationContextInfo &context) override {
        if (message->CommandField != DIMSE_N_EVENT_REPORT_RQ)
            return DcmSCP::handleIncomingCommand(message, context);
        T_DIMSE_N_EventReportRQ &report = message->msg.NEventReportRQ;
        DcmDataset *information = nullptr;
        Uint16 type = 0;
        const OFCondition condition =
            handleEVENTREPORTRequest(report, context.presentationContextID, information, type);
        keep(information, folder_, ++heard_);
        delete information;
        std::printf("%u\t%s\t%s\n", type, report.AffectedSOPClassUID, report.AffectedSOPInstanceUID);
        std::fflush(stdout);
        return condition;
    }

private:
    Text folder_;
    int heard_ = 0;
};

int main(int argc, char *argv[]) {
    const Texts arguments(argv + 1, argv + argc);
    require(arguments.size() >= 4, "what is asked for is missing");
    OFLog::configure(OFLogger::WARN_LOG_LEVEL);
    if (arguments[0] == "hear") {
        require(Station(arguments).listen(), "station");
        return 0;
    }
    require(arguments.size() >= 7, "what is asked for is missing");
    Client client(arguments);
    DcmDataset ds;
    if (arguments[0] == "find" || arguments[0] == "stop") {
        keys(ds, arguments, 6);
        client.find(ds, arguments[0] == "stop" ? 5 : 0);
    } else if (arguments[0] == "get") {
        client.get(arguments[6], Texts(arguments.begin() + 7, arguments.end()));
    } else if (arguments[0] == "set") {
        keys(ds, arguments, 7);
        client.set(arguments[6], ds);
    } else {
        require(arguments.size() >= 8, "find, stop, get, set, act or plain");
        keys(ds, arguments, 8);
        const int type = std::stoi(arguments[7]);
        arguments[0] == "plain" ? client.plain(arguments[6], type, ds) : client.act(arguments[6], type, ds);
    }
    require(client.releaseAssociation(), "release");
}

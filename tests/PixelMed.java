import com.pixelmed.validate.DicomSRValidator;
import java.util.Scanner;

/** Validates the files named on standard input, a line each, with stylesheets compiled once. */
class PixelMed {
    public static void main(String[] arguments) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (Scanner names = new Scanner(System.in); names.hasNextLine();) {
            String name = names.nextLine();
            try {
                // As its main() without options: only the case of code meanings is compared.
                System.out.print(validator.validate(name, false, true, false, false, false));
            } catch (Exception error) {
                error.printStackTrace(System.out);
            }
            System.out.println(arguments[0]);
        }
    }
}
